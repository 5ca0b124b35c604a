"""The licences of the downloaded models, which belong to others: shown before the download. Knows no page."""

from ..text.translations import Translator

LICENCES = {
    "hunyuan": "https://github.com/Tencent-Hunyuan/HunyuanVideo/blob/main/LICENSE.txt",
    "llama": "https://www.llama.com/llama3/license/",
    "clip": "https://github.com/openai/CLIP/blob/main/LICENSE",
    "siglip": "https://www.apache.org/licenses/LICENSE-2.0",
}
"""The addresses of the licences, by the key of their sentence, `licence.<key>`."""


def licence_lines(words: Translator) -> list[tuple[str, str]]:
    """Return what each licence asks, in a sentence or two, and its address."""
    return [(words(f"licence.{key}"), address) for key, address in LICENCES.items()]
