/* The toast: the one place for messages, in view wherever the page is scrolled to. Shows what the server has written, whether
   it answers this page's scripts or a handler of Gradio, which writes to #message. Knows no job. */
(() => {
  "use strict";
  if (window.ichiToast) return;
  const LASTING = 8000;   // milliseconds; errors stay
  const byId = (id) => document.getElementById(id);
  let timer = null, isPointedAt = false, heard = "";   // the number of the last message in #message

  function show(markup) {
    const before = byId("ichi-toast"), toast = before.cloneNode(true), undone = before.hidden ? null : removed(before);
    before.replaceWith(toast);                      // a box of its own for each message: none changes its size
    const said = byId("ichi-toast-said");
    toast.hidden = false;
    said.setAttribute("role", markup.includes("ichi-error") ? "alert" : "status");
    said.innerHTML = markup;
    const both = undone && removed(toast);          // one undo for all that was removed while it stands there
    if (both) said.querySelector("[data-ichi-undo]").dataset.ichiUndo = `jobs/${undone},${both}/restore`;
    planEnd();
  }

  /* The ids of the jobs that the undo in a toast brings back. */
  function removed(toast) {
    const button = toast.querySelector("[data-ichi-undo]");
    return ((button && button.dataset.ichiUndo.match(/^jobs\/(.+)\/restore$/)) || [])[1];
  }

  function tell(text) {
    const message = document.createElement("div"), words = document.createElement("p");
    message.className = "ichi-message ichi-note";
    words.textContent = text;
    message.append(words);
    show(message.outerHTML);
  }

  function close() {
    clearTimeout(timer);
    byId("ichi-toast").hidden = true;
    byId("ichi-toast-said").replaceChildren();
  }

  function planEnd() {
    clearTimeout(timer);
    if (byId("ichi-toast-said").getAttribute("role") !== "alert") timer = setTimeout(end, LASTING);
  }

  function end() {                                  // not while somebody reads it or is about to press its button
    const toast = byId("ichi-toast");
    if (isPointedAt || toast.contains(document.activeElement)) planEnd();
    else close();
  }

  document.addEventListener("pointerover", ({ target }) => { isPointedAt = Boolean(target.closest("#ichi-toast")); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && byId("ichi-toast")) close(); });
  document.addEventListener("click", (event) => { if (event.target.closest("#ichi-toast-close")) close(); });
  new MutationObserver((changes) => {
    const box = byId("message");
    if (!box || !byId("ichi-toast") || !changes.some(({ target }) => box.contains(target))) return;
    const message = box.querySelector(".ichi-message"), number = message ? message.dataset.number : "";
    if (number === heard) return;                   // Gradio draws its own signs of work there, too
    heard = number;
    if (message) show(message.outerHTML);
    else close();
  }).observe(document.documentElement, { childList: true, subtree: true });

  window.ichiToast = { show, tell, close };
})();
