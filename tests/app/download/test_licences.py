"""The models' licences, named before the download in every language."""

from pathlib import Path

import pytest

from webui.eichi_utils.download.licences import LICENCES, licence_lines
from webui.eichi_utils.text.translations import LANGUAGES, Translator

ROOT = Path(__file__).parents[3]
REGIONS = {"ja": "EU、英国、韓国", "en": "the EU, the UK and South Korea", "zh-tw": "歐盟、英國與南韓"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_page_guide_and_readme_name_what_the_licences_ask(language):
    lines = licence_lines(Translator(language))
    assert [address for _, address in lines] == list(LICENCES.values())
    guide, readme = ((ROOT / name).read_text("utf-8") for name in (f"docs/guide.{language}.md", "README.md"))
    names = ("Tencent Hunyuan Community License", "Built with Meta Llama 3", "MIT", "Apache")
    for (text, address), name in zip(lines, names, strict=True):
        assert name in text
        for document in (guide, readme):
            assert name in document
            assert address in document
    for text in (lines[0][0], guide, readme):
        assert REGIONS[language] in text
        assert "AI" in text
