/* What is typed while the app is away, or right before the page goes, and so reaches no server: it is typed again on the page
   that is loaded next. Knows no field by name. */
(() => {
  "use strict";
  if (window.ichiTyped) return;

  const FIELDS = ":is(#left, #more) :is(textarea, input:not([type=file], #startup-preset *))";
  const SENDING = 5000;    // milliseconds after which a busy server has heard what was typed, too
  const hasState = (field) => field.type === "radio" || field.type === "checkbox";
  const nameOf = (field) => [field.closest("[id]:not([id=''], [id^=range_id])").id, field.type, hasState(field) ? field.value : ""].join();
  const valueOf = (field) => (hasState(field) ? field.checked : field.value);
  const typedAt = new Map();
  let typed = new Map();   // on the page before this one, and not yet on this one
  let isPlanned = false;

  document.addEventListener("input", ({ target }) => {
    if (!target.matches(FIELDS)) return;
    typedAt.set(nameOf(target), performance.now());
    typed.delete(nameOf(target));                  // a quick hand was here first
  }, true);

  window.addEventListener("pagehide", () => {
    const isUnsent = (field) => ichi.isAway() || performance.now() - typedAt.get(nameOf(field)) < SENDING;
    const unsent = [...document.querySelectorAll(FIELDS)].filter(isUnsent);
    sessionStorage.setItem("ichi-typed", JSON.stringify(unsent.map((field) => [nameOf(field), valueOf(field)])));
  });

  const isAwaited = (field) => typed.has(nameOf(field));
  const awaited = () => [...document.querySelectorAll(FIELDS)].filter(isAwaited);

  function typeAgain() {
    isPlanned = false;
    for (const field of awaited()) {
      const value = typed.get(nameOf(field));
      typed.delete(nameOf(field));
      if (value === valueOf(field)) continue;
      if (hasState(field)) { if (value || field.type === "checkbox") field.click(); continue; }
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }

  function restore() {
    typed = new Map(JSON.parse(sessionStorage.getItem("ichi-typed") || "[]"));
    sessionStorage.removeItem("ichi-typed");
    typeAgain();
    setTimeout(() => typed.clear(), SENDING);
  }

  new MutationObserver(() => {                     // rows of sections come late, and Gradio fills them in several times
    if (!typed.size || isPlanned || !awaited().length) return;
    isPlanned = true;
    setTimeout(typeAgain, 200);
  }).observe(document.documentElement, { childList: true, subtree: true });

  window.ichiTyped = { restore };
})();
