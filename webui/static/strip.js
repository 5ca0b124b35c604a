/* The strip of the newest videos in the output folder. Puts on the page what the server sends; a video plays on the stage, and
   the stage's buttons act on it. */
(() => {
  "use strict";
  if (window.ichiStrip) return;

  const byId = (id) => document.getElementById(`ichi-${id}`);

  /* `shown` is the result that the stage has. */
  window.ichiStrip = ({ title, videos }, shown) => {
    const box = byId("strip-box"), list = byId("strip");
    if (!box) return;
    box.hidden = !videos.length;
    if (byId("strip-title").textContent !== title) byId("strip-title").textContent = title;
    const ids = new Set(videos.map((video) => video.id));
    for (const item of [...list.children]) if (!ids.has(item.dataset.id)) leave(item);
    const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
    videos.forEach((video, index) => {
      const item = known.get(video.id) || newItem(video);
      fill(item, video, shown);
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] || null);
    });
  };

  function newItem(video) {
    const item = byId("strip-item").content.firstElementChild.cloneNode(true);
    item.dataset.id = video.id;
    item.querySelector("img").src = video.thumbnail;
    return item;
  }

  function fill(item, video, shown) {
    const image = item.querySelector("img");
    if (image.alt !== video.play) image.alt = image.parentElement.title = video.play;
    item.classList.toggle("ichi-shown", Boolean(shown) && video.file === shown.file);
    for (const button of item.querySelectorAll(":scope > div button")) {
      const word = video.actions[button.dataset.action];
      button.style.visibility = word ? "" : "hidden";
      if (word && button.title !== word) {
        button.title = word;
        button.setAttribute("aria-label", `${word}: ${video.file}`);
      }
    }
  }

  function leave(item) {                           // the keyboard stays in the strip
    const next = item.contains(document.activeElement) && (item.nextElementSibling || item.previousElementSibling);
    item.remove();
    if (next) next.querySelector("button").focus();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("#ichi-strip button");
    if (!button) return;
    const id = button.closest("[data-id]").dataset.id, action = button.dataset.action;
    if (action === "folder") { window.ichi.post(`recent/${id}/folder`); return; }
    window.ichi.play(id);
    if (action === "play") byId("screen").scrollIntoView({ block: "nearest" });
    const acts = { settings: "take-settings", continue: "continue" }[action];
    if (acts) document.getElementById(acts).click();
  });
})();
