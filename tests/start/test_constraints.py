"""The tried versions of constraints.txt, and how the script makes them."""

import datetime
import re

import pytest
from packaging.requirements import Requirement

from scripts import constraints
from scripts.torch_build import BUILDS

REQUIREMENTS = [
    Requirement(line.partition("#")[0])
    for line in constraints.REQUIREMENTS.read_text("utf-8").splitlines()
    if line.partition("#")[0].strip()
]
LINES = [
    Requirement(line)
    for line in constraints.CONSTRAINTS.read_text("utf-8").splitlines()
    if not line.startswith("#")
]
SYSTEMS = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine}
    | {"python_version": python, "python_full_version": f"{python}.5"}
    for system, name, machine in (("win32", "Windows", "AMD64"), ("linux", "Linux", "x86_64"))
    for python in constraints.PYTHONS
]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: " ".join(system.values()))
def test_every_requirement_has_one_version_that_satisfies_it(system):
    for requirement in REQUIREMENTS:
        if requirement.marker is not None and not requirement.marker.evaluate(system):
            continue
        fitting = [
            line
            for line in LINES
            if line.name.lower().replace("_", "-") == requirement.name.lower().replace("_", "-")
            and (line.marker is None or line.marker.evaluate(system))
        ]
        assert len(fitting) == 1, requirement
        (version,) = fitting[0].specifier
        assert requirement.specifier.contains(version.version), (requirement, version)


def test_requirements_name_pytorch_in_one_line_below_what_triton_fits():
    lines = [requirement for requirement in REQUIREMENTS if requirement.name == "torch"]
    assert len(lines) == 1
    assert "2.14.1" in lines[0].specifier
    assert "2.15.0" not in lines[0].specifier


def test_nothing_but_versions_stands_in_the_file():
    text = constraints.CONSTRAINTS.read_text("utf-8")
    assert "://" not in text and "--" not in text
    assert not [line for line in LINES if line.name in ("triton", "setuptools") or "nvidia" in line.name]
    assert [str(line) for line in LINES if line.name == "torch"] == ["torch<=2.14.1"]
    assert all(str(line.specifier).startswith("==") for line in LINES if line.name != "torch")
    assert constraints.made_on(text) <= datetime.date.today()


def test_what_belongs_to_a_build_of_pytorch_is_left_to_it():
    solved = (
        "numpy==2.4.6 ; python_version < '3.12'\nnvidia-cublas==13.1.1.3 ; sys_platform == 'linux'\n"
        "setuptools==84.2.1\ncuda-bindings==13.5.0\ntorch==2.14.1\ntriton==3.8.0\ntorchao==1.0\n"
    )
    made = constraints.make(solved, datetime.date(2026, 11, 29))
    assert constraints.made_on(made) == datetime.date(2026, 11, 29)
    lines = [line for line in made.splitlines() if not line.startswith("#")]
    assert lines == ["numpy==2.4.6 ; python_version < '3.12'", "torch<=2.14.1", "torchao==1.0"]


@pytest.mark.parametrize(("days", "status"), [(0, 0), (180, 0), (181, 1)])
def test_an_old_file_is_told_about(days, status, capsys):
    day = datetime.date(2026, 11, 29)
    text = constraints.make("numpy==2.4.6\n", day)
    assert constraints.check_age(text, day + datetime.timedelta(days)) == status
    assert ("run scripts/constraints.py" in capsys.readouterr().out) is bool(status)


def test_the_check_solves_for_the_last_pytorch_of_each_older_build():
    assert {build.tag for build in BUILDS} == {"cu126", "cu128", "cu130"}  # to 2.14, to 2.11, and on
    assert re.findall(r"2\.11\.\d", " ".join(constraints.TORCHES))
