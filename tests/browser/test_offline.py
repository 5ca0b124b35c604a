"""The network that the app of these tests doesn't have: what is asked of it would be noticed."""

import os
import subprocess
import sys


def test_what_is_asked_of_the_network_would_be_noticed(refusal, tmp_path):
    asked = tmp_path / "asked.txt"
    environment = os.environ | refusal | {"ASKED_OF_THE_NETWORK": str(asked)}
    for question in ("create_connection(('192.0.2.1', 80), 1)", "getaddrinfo('huggingface.co', 443)"):
        trial = [sys.executable, "-c", f"import socket; socket.{question}"]
        assert subprocess.run(trial, env=environment, capture_output=True, check=False).returncode == 1
    assert "192.0.2.1" in asked.read_text("utf-8")
    assert "huggingface.co" in asked.read_text("utf-8")
