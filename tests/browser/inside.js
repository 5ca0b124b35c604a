/* What the tests' driver does inside of the page. Runs before the page's own scripts. */
window.inside = (() => {
  "use strict";
  const byId = (id) => document.getElementById(id);

  /* ---- which questions to the server are still open: the page's own requests, looked at ------------------------ */

  const fetch = window.fetch, open = new Set(), answered = new Set();
  let asked = 0;

  function close(id) {
    answered.add(id);
    setTimeout(() => open.delete(id), 30);   // the page takes the answer first
  }

  async function follow(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part; !(part = await reader.read()).done;) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines.filter((line) => line.startsWith("data:"))) {
        const message = JSON.parse(line.slice(5));
        if (message.msg === "process_completed") close(message.event_id);
      }
    }
  }

  window.fetch = async (...request) => {
    const url = String(request[0].url || request[0]), isQuestion = url.includes("/queue/join");
    const id = {};
    if (isQuestion) asked += 1;
    if (isQuestion || url.includes("/upload")) open.add(id);
    try {
      const response = await fetch(...request);
      if (url.includes("/queue/data")) follow(response.clone()).catch(() => {});
      if (isQuestion) {
        const { event_id } = await response.clone().json();
        if (event_id && !answered.has(event_id)) open.add(event_id);
      }
      return response;
    } finally {
      open.delete(id);
    }
  };

  /* ---- what the live half shows, one after the other ------------------------------------------------------------- */

  const seen = [];
  const text = (id) => byId(id).textContent;
  const address = (element) => (element.hidden ? "" : element.getAttribute("src") || "");

  function look() {
    const video = byId("ichi-video");
    const now = {
      running: !byId("ichi-job").hidden,
      status: text("ichi-status"),
      left: text("ichi-left"),
      title: document.title,
      caption: text("ichi-caption"),
      preview: address(byId("ichi-preview")),
      video: address(video),
      playing: !video.hidden && !video.paused && video.currentTime > 0,
      chimes: ichi.chimes,
    };
    if (JSON.stringify(now) !== JSON.stringify(seen[seen.length - 1])) seen.push(now);
  }

  function record() {
    const everything = { childList: true, subtree: true, characterData: true, attributes: true };
    new MutationObserver(look).observe(document.documentElement, everything);
    byId("ichi-video").addEventListener("timeupdate", look);
    look();
  }

  /* ---- what a mouse or a hand would do ------------------------------------------------------------------------------ */

  function drop([files, selector]) {
    const transfer = new DataTransfer();
    for (const { name, type, content } of files) {
      const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
      transfer.items.add(new File([bytes], name, { type }));
    }
    for (const kind of ["dragenter", "dragover", "drop"]) {
      const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.querySelector(selector).dispatchEvent(event);
    }
  }

  function dropText([kind, content, selector]) {
    const transfer = new DataTransfer();
    transfer.setData(kind, content);
    for (const name of ["dragenter", "dragover", "drop"]) {
      const event = new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.querySelector(selector).dispatchEvent(event);
    }
  }

  async function pixels(selector) {
    const image = document.querySelector(selector), canvas = document.createElement("canvas");
    await image.decode();
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const drawn = canvas.getContext("2d");
    drawn.drawImage(image, 0, 0);
    return [[canvas.width, canvas.height], [...drawn.getImageData(0, 0, canvas.width, canvas.height).data]];
  }

  async function endJobs() {
    const headers = { "X-Endframe-Ichi": "1" };
    const post = (id, action) => fetch(`ichi/jobs/${id}/${action}`, { method: "POST", headers });
    for (const row of document.querySelectorAll("#ichi-queue li[data-state=waiting]")) await post(row.dataset.id, "remove");
    if (ichi.runningJob()) await post(ichi.runningJob(), "stop");
  }

  /* ---- what stands there ----------------------------------------------------------------------------------------------- */

  function queue() {
    return [...document.querySelectorAll("#ichi-queue li")].map((row) => ({
      state: row.dataset.state,
      name: row.querySelector(".ichi-queue-name").textContent,
      prompt: row.querySelector(".ichi-queue-prompt").textContent,
      buttons: [...row.querySelectorAll("button")].filter((button) => !button.hidden).map((button) => button.textContent),
    }));
  }

  const PARTS = "button:not(.upload-container), input:not([type=range]):not([type=file]), textarea, h1, h2, p, summary, "
    + "video, label > span:not([data-testid=block-label] *), [data-testid=block-label]";
  const APART = ".source-selection, .icon-button-wrapper, #ichi-announcer, #ichi-toast";   // lie over a picture on purpose

  function isScrolledAway(element, box) {
    for (let outer = element.parentElement; outer; outer = outer.parentElement) {
      if (getComputedStyle(outer).overflow === "visible") continue;
      const edge = outer.getBoundingClientRect();
      if (box.bottom <= edge.top || box.top >= edge.bottom) return true;
    }
    return false;
  }

  function boxes() {
    return [...document.querySelectorAll(PARTS)]
      .filter((element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
      .filter((element) => !element.closest(APART))
      .map((element) => [element, element.getBoundingClientRect()])
      .filter(([element, box]) => box.width > 2 && box.height > 2 && !isScrolledAway(element, box))
      .map(([element, box], place, all) => ({
        name: [element.tagName, (element.closest("[id]") || {}).id, element.textContent.slice(0, 30)].join(" "),
        left: box.left + scrollX, top: box.top + scrollY, right: box.right + scrollX, bottom: box.bottom + scrollY,
        around: all.flatMap(([other], number) => (other !== element && other.contains(element) ? [number] : [])),
      }));
  }

  function words() {
    const seen = [document.title, document.body.innerText];
    for (const element of document.querySelectorAll("body *"))
      if (element.checkVisibility())
        for (const name of ["aria-label", "placeholder", "title", "alt", "aria-valuetext"])
          if (element.getAttribute(name)) seen.push(element.getAttribute(name));
    return seen.join("\n");
  }

  function focused() {
    let element = document.activeElement;
    while (element && (!element.id || element.id.startsWith("range_id"))) element = element.parentElement;
    return element ? element.id : "";
  }

  return {
    asked: () => asked, isSettled: () => open.size === 0, seen: () => seen, record, drop, dropText, pixels, endJobs, queue, boxes, words, focused,
  };
})();
