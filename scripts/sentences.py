"""The messages of the start scripts, each in Japanese and in English.

Runs before any package is installed: the standard library only. The messages of start.bat for
machines without Python are in no_python.txt and start_failed.txt.
"""

import io
import sys

SENTENCES = {
    "waiting": (
        "別のウィンドウが準備をしています。終わるまで待ちます。",
        "Another window is preparing the app: waiting for it.",
    ),
    "making": ("仮想環境を作っています: {folder}", "Making a virtual environment in {folder}"),
    "not_made": (
        "仮想環境を作れませんでした。上のメッセージと、このフォルダーに書き込めるか、ディスクの空きを確認して、"
        "もう一度起動してください。",
        "The virtual environment could not be made: see the lines above, check that this folder can be "
        "written to and that the disk has room, then start again.",
    ),
    "installing": (
        "{file} のパッケージをインストールしています。初回は数分かかります。",
        "Installing what {file} asks for: the first time, this takes minutes.",
    ),
    "not_installed": (
        "インストールに失敗しました。上のメッセージを見て、インターネットへの接続とディスクの空き"
        "（現在 {free} GB、約 12 GB 必要）を確認して、もう一度起動してください。何度も失敗するときは、"
        "先に venv フォルダーを消してください。",
        "The installation failed: see the lines above, check the network and the free disk space "
        "({free} GB now, about 12 GB are needed), then start again. If it keeps failing, delete the folder "
        "venv first.",
    ),
    "long_path": (
        "このフォルダーの場所が長すぎるのかもしれません（{length} 文字）。"
        "C:\\EndframeIchi のような短い場所に移してください。",
        "The path of this folder may be too long ({length} characters): move it to a short one, such as "
        "C:\\EndframeIchi.",
    ),
    "torch_wish": (
        "environment2.bat か環境変数の指定で PyTorch を入れます: {wish}",
        "Taking PyTorch as environment2.bat or the environment asks: {wish}",
    ),
    "torch_kept": (
        "PyTorch を入れ替えられなかったので、いまあるもので起動します。次の起動でもう一度試します。",
        "PyTorch could not be exchanged: the app starts with what is here, and the next start tries again.",
    ),
    "torch_fits": (
        "グラフィックカード: {card}、ドライバー {driver}。"
        "PyTorch の {cuda} 版を入れます（数 GB のダウンロード）。",
        "Graphics card: {card}, driver {driver}. Taking PyTorch for {cuda}: several GB to download.",
    ),
    "torch_no_card": (
        "NVIDIA のグラフィックカードが見つかりません。CPU で計算するので、とても遅くなります。"
        "カードがあるはずなら、NVIDIA のドライバーを入れて、もう一度起動してください。",
        "No NVIDIA card was found: the app will compute on the CPU, which is very slow. If there is a card, "
        "install NVIDIA's driver and start again.",
    ),
    "torch_no_answer": (
        "NVIDIA のドライバーが応答しません。CPU で計算するので、とても遅くなります。"
        "ドライバーを入れ直して、もう一度起動してください。",
        "NVIDIA's driver does not answer: the app will compute on the CPU, which is very slow. Install the "
        "driver anew and start again.",
    ),
    "torch_card_too_old": (
        "{card} は古くて使えません（RTX 20 以降が必要です）。CPU で計算するので、とても遅くなります。",
        "{card} is too old for this app, which needs an RTX 20 or newer: it will compute on the CPU, which "
        "is very slow.",
    ),
    "torch_driver_too_old": (
        "{card} のドライバー {driver} は古すぎます。CPU で計算するので、とても遅くなります。"
        "ドライバーを {needed} 以上に更新して、もう一度起動してください。",
        "Driver {driver} of {card} is too old: the app will compute on the CPU, which is very slow. Update "
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
