"""The messages of the start scripts, each in Japanese and in English.

Runs before any package is installed: the standard library only. The messages of start.bat for
machines without Python are in no_python.txt and start_failed.txt.
"""

import io
import sys

SENTENCES = {
    "waiting": (
        "別のウィンドウがアプリを準備しています。終わるまで待ちます。",
        "Another window is preparing the app. Waiting for it to finish.",
    ),
    "making": ("仮想環境を作っています: {folder}", "Creating a virtual environment in {folder}"),
    "not_made": (
        "仮想環境を作れませんでした。上のメッセージを見て、このフォルダーに書き込めることとディスクの空きを確認し、"
        "もう一度起動してください。",
        "The virtual environment could not be created. See the messages above, check that this folder can be "
        "written to and that the disk has space, then start again.",
    ),
    "installing": (
        "{file} のパッケージをインストールしています。初回は数分かかります。",
        "Installing the packages in {file}. The first time, this takes a few minutes.",
    ),
    "not_installed": (
        "インストールに失敗しました。上のメッセージを見て、インターネットへの接続とディスクの空き"
        "（現在 {free} GB、約 12 GB 必要）を確認し、もう一度起動してください。何度も失敗するときは、"
        "先に venv フォルダーを削除してください。",
        "The installation failed. See the messages above, check the network and the free disk space "
        "({free} GB now, about 12 GB needed), then start again. If it keeps failing, delete the venv folder "
        "first.",
    ),
    "unconstrained": (
        "動作を確認したバージョンをインストールできないため、インストールできるバージョンを使います。",
        "The tested versions could not be installed. Installing versions that can be.",
    ),
    "triton": (
        "計算を速くする Triton {version} をインストールしています。",
        "Installing Triton {version}, which makes videos faster.",
    ),
    "no_triton": (
        "Triton をインストールできませんでした。少し遅くなりますが、アプリは使えます。"
        "次の起動でもう一度試します。",
        "Triton could not be installed. The app works without it, only slower. The next start tries again.",
    ),
    "long_path": (
        "このフォルダーのパスが長すぎるのかもしれません（{length} 文字）。"
        "C:\\EndframeIchi のような短い場所に移してください。",
        "The path of this folder may be too long ({length} characters). Move it to a short one, such as "
        "C:\\EndframeIchi.",
    ),
    "torch_wish": (
        "environment2.bat か環境変数の指定に従って、PyTorch をインストールします: {wish}",
        "Installing PyTorch as set in environment2.bat or the environment: {wish}",
    ),
    "torch_kept": (
        "PyTorch を入れ替えられないため、今あるもので起動します。次の起動でもう一度試します。",
        "PyTorch could not be replaced, so the app starts with the one installed. The next start tries "
        "again.",
    ),
    "torch_fits": (
        "GPU: {card}、ドライバー {driver}。"
        "PyTorch の {cuda} 版をインストールします（数 GB のダウンロード）。",
        "GPU: {card}, driver {driver}. Installing PyTorch for {cuda} (a download of several GB).",
    ),
    "torch_no_card": (
        "NVIDIA の GPU が見つかりません。CPU で計算するため、とても遅くなります。"
        "GPU があるはずなら、NVIDIA のドライバーをインストールして、もう一度起動してください。",
        "No NVIDIA GPU was found. The app will compute on the CPU, which is very slow. If you have one, "
        "install NVIDIA's driver and start again.",
    ),
    "torch_no_answer": (
        "NVIDIA のドライバーが応答しません。CPU で計算するため、とても遅くなります。"
        "ドライバーをインストールし直して、もう一度起動してください。",
        "NVIDIA's driver does not respond. The app will compute on the CPU, which is very slow. Reinstall "
        "the driver and start again.",
    ),
    "torch_card_too_old": (
        "{card} は古すぎて使えません（RTX 20 以降が必要です）。CPU で計算するため、とても遅くなります。",
        "{card} is too old for this app, which needs an RTX 20 or newer. The app will compute on the CPU, "
        "which is very slow.",
    ),
    "torch_driver_too_old": (
        "{card} のドライバー {driver} は古すぎます。CPU で計算するため、とても遅くなります。"
        "ドライバーを {needed} 以降に更新して、もう一度起動してください。",
        "Driver {driver} of {card} is too old. The app will compute on the CPU, which is very slow. Update "
        "the driver to {needed} or newer and start again.",
    ),
}


def say(code: str, **values: object) -> None:
    """Both sentences, each on a line of its own. A terminal without Japanese letters gets question marks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    for sentence in SENTENCES[code]:
        sys.stdout.write(sentence.format(**values) + "\n")
    sys.stdout.flush()
