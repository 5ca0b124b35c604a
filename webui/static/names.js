/* The names, for screen readers, of the small parts that Gradio draws by itself: Gradio names them in English, or in the
   browser's language, and without the field that they belong to. Here they get a name in the page's language: a field is called
   by its label, a button by its label and what it does. The choices of a field become one group for the keyboard. Knows no job. */
(() => {
  "use strict";
  if (window.ichiNames) return;
  window.ichiNames = true;

  const BLOCKS = ".ichi-picture, #several-images, .block:has(> .wrap input[type=range])";
  const PARTS = [   // the first that fits
    [".thumbnail-item", "number"],
    [".delete-button", "live.take_away"],
    [".source-selection button:first-of-type", "live.choose_file"],
    [".source-selection button:last-of-type", "live.paste_picture"],
    ["button.upload-container, .icon-button:has(.upload-container)", "live.choose_file"],
    [".icon-button", "live.take_away"],
    ["input[type=number], input[type=range]", null],
  ];

  function nameAll() {
    if (!window.ichi || !window.ichi.word("live.take_away")) return;
    for (const block of document.querySelectorAll(BLOCKS)) {
      const label = block.querySelector("[data-testid=block-label], [data-testid=block-info]");
      if (label) nameParts(block, label.textContent.trim());
    }
  }

  function nameRadios() {                          // Gradio gives each a name of its own: no arrow key moves between them
    for (const radio of document.querySelectorAll("fieldset[id] input[type=radio]")) {
      const { id } = radio.closest("fieldset");
      if (radio.name !== id) radio.name = id;
    }
  }

  function nameParts(block, label) {
    let number = 0;
    for (const part of block.querySelectorAll("button, input[type=number], input[type=range]")) {
      const [, key] = PARTS.find(([selector]) => part.matches(selector)) || [];
      if (key === undefined) continue;
      const seen = part.matches(".upload-container") && part.innerText.trim().replace(/\s+/g, " ");
      const what = key === "number" ? String(++number) : seen || (key && window.ichi.word(key));
      const name = what ? `${label}: ${what}` : label;
      if (part.getAttribute("aria-label") !== name) part.setAttribute("aria-label", name);
      if (part.title && part.title !== name) part.title = name;
    }
  }

  let planned = null;
  const plan = () => { planned = planned || setTimeout(() => { planned = null; nameAll(); nameRadios(); }, 100); };
  const watched = { childList: true, subtree: true, characterData: true, attributeFilter: ["aria-label", "title"] };
  new MutationObserver(plan).observe(document.documentElement, watched);
})();
