/* What the form does without the server: marks settings that differ from their defaults, offers English phrases to those who
   write in another language, and starts with Ctrl+Enter. Knows no job. */
(() => {
  "use strict";
  if (window.ichiForm) return;
  window.ichiForm = true;

  const byId = (id) => document.getElementById(id);
  const FOREIGN = /[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/;   // Japanese, Chinese, Korean: the models read English
  const RUNS = /[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uff00-\uffef]+/g;   // with their signs and wide letters

  /* ---- what differs from the defaults -------------------------------------------------------------------------------- */

  function markChanged() {
    const line = document.querySelector("#changes [data-changed]");
    if (!line) return;
    const ids = line.dataset.changed.split(" ").flatMap((id) => [id, `${id}-choice`]);
    for (const marked of document.querySelectorAll(".ichi-changed"))
      if (!ids.includes(marked.id)) marked.classList.remove("ichi-changed");
    for (const id of ids) if (byId(id)) byId(id).classList.add("ichi-changed");
  }

  /* ---- "Other" opens a number, in which one types at once ------------------------------------------------------------- */

  document.addEventListener("click", ({ target, detail }) => {
    if (!detail || !target.matches(".ichi-choice input[value=other]")) return;   // not with the keys, which pass by
    const choice = target.closest(".ichi-choice");
    const focus = () => {
      const number = choice.querySelector("input[type=number]");
      if (number) { watch.disconnect(); number.focus(); number.select(); }
    };
    const watch = new MutationObserver(focus);
    watch.observe(choice, { childList: true, subtree: true });
    focus();
  });

  /* ---- the prompt ------------------------------------------------------------------------------------------------------ */

  const promptField = () => document.querySelector("#prompt textarea");
  let closedAt = null;     // the text at which Escape closed the hint

  function showHint() {
    const hint = byId("ichi-hint"), field = promptField(), active = document.activeElement;
    if (!hint || !field) return;
    if (field.value !== closedAt) closedAt = null;
    hint.hidden = closedAt !== null || !(FOREIGN.test(field.value) && (active === field || hint.contains(active)));
  }

  function closeHint() {
    const hint = byId("ichi-hint"), field = promptField();
    if (!hint || hint.hidden) return;
    if (hint.contains(document.activeElement)) field.focus();
    closedAt = field.value;
    showHint();
  }

  /* In place of what the models cannot read; as if it was typed, so that Ctrl+Z brings that back. */
  function insert(phrase) {
    const field = promptField(), text = field.value.replace(RUNS, " ").replace(/\s+/g, " ").trim();
    field.focus();
    field.select();
    document.execCommand("insertText", false, `${text} ${phrase}`.trim());
    showHint();
  }

  document.addEventListener("input", (event) => { if (event.target === promptField()) showHint(); });
  for (const kind of ["focusin", "focusout"]) document.addEventListener(kind, () => setTimeout(showHint));
  document.addEventListener("click", ({ target }) => { if (target.dataset.ichiPhrase) insert(target.dataset.ichiPhrase); });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) closeHint();
    if (event.key !== "Enter" || event.isComposing) return;
    if (event.ctrlKey || event.metaKey) { event.preventDefault(); byId("start").click(); return; }
    if (event.target.closest("#preset-name")) byId("save-preset").click();
  });

  new MutationObserver(markChanged).observe(document.documentElement, { childList: true, subtree: true });
})();
