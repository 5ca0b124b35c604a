/* The live half of the page: shows what the server's jobs are doing, whichever page started them.
   The server sends whole states with all their words (Server-Sent Events); this file only puts them on the page.
   Everything that the user fills in belongs to Gradio and is not touched here. */
(() => {
  "use strict";
  if (window.ichi) return;

  const byId = (id) => document.getElementById(`ichi-${id}`);
  const base = new URL("ichi/", document.baseURI || location.href);
  let state = null;        // the newest state that the server sent
  let source = null;       // the open EventSource
  let language = "";       // of the words in `state`
  let pinned = null;       // the id of an ended job that this page shows on request
  let newestShown = null;  // the id of the running job whose video is shown
  let serverId = null;
  let lastEnded;           // id of the newest ended job; undefined before the first state
  let lostTimer = null;
  let setupOpened = false;
  let lastOffer;           // what the download offers; undefined before the first state
  const dismissed = new Set();
  const sure = new Set();  // ids of the jobs whose "delete" was clicked once

  /* ---- receiving ---------------------------------------------------------------------------------------------- */

  function connect(wanted) {
    if (source && wanted === language) return;
    if (source) source.close();
    language = wanted;
    document.documentElement.lang = { "zh-tw": "zh-Hant-TW" }[language] || language;
    source = listen(new URL(`events?lang=${encodeURIComponent(language)}`, base).href, {
      state: (text) => receive(JSON.parse(text)),
      open: () => { clearTimeout(lostTimer); lostTimer = null; show(byId("lost"), false); },
      lost: () => { lostTimer = lostTimer || setTimeout(() => show(byId("lost"), true), 3000); },
    });
  }

  /* Browsers open six connections to a server, over all tabs, and a stream holds one: the tabs share a stream. */
  function listen(address, take) {
    const worker = window.SharedWorker ? new SharedWorker(new URL("stream.js", base), "endframe-ichi") : null;
    const port = worker ? worker.port : window.ichiStream();
    let isClosed = false;
    port.onmessage = ({ data }) => { if (!isClosed) take[data.kind](data.text); };
    const begin = () => port.postMessage(address), end = () => port.postMessage(null);
    begin();
    window.addEventListener("pagehide", end);
    window.addEventListener("pageshow", (event) => { if (event.persisted && !isClosed) begin(); });
    return { close: () => { isClosed = true; end(); } };
  }

  function receive(next) {
    if (serverId !== null && serverId !== next.server) { location.reload(); return; }
    serverId = next.server;
    state = next;
    if (state.job && state.job.has_video && state.job.id !== newestShown) {
      newestShown = state.job.id;                       // a new job has something to show
      pinned = null;
    }
    render();
    announceEnd();
  }

  function announceEnd() {
    const newest = state.ended;
    if (lastEnded !== undefined && newest && newest.id !== lastEnded) {
      byId("announcer").textContent = newest.text;
      if (state.sound) chime(newest.good);
      click("look-again");                              // about how long the next one takes is known now
    }
    lastEnded = newest ? newest.id : null;
  }

  function click(hidden) {
    const button = document.getElementById(hidden);
    if (button) button.click();
  }

  /* ---- showing ------------------------------------------------------------------------------------------------ */

  function render() {
    if (!state || !["live", "work", "queue-box", "unfinished-box", "setup-box"].every(byId)) return;
    document.title = state.title;
    renderWords();
    renderSetup();
    renderVideo();
    renderJob();
    renderFailure();
    renderJobs(byId("unfinished-box"), byId("unfinished"), state.unfinished);
    renderJobs(byId("queue-box"), byId("queue"), state.queue);
    const stop = document.getElementById("stop");
    if (stop) stop.disabled = !state.job || state.job.stopping;
  }

  function renderWords() {
    for (const element of document.querySelectorAll("[data-ichi-text]"))
      setText(element, state.words[element.dataset.ichiText] || "");
    for (const element of document.querySelectorAll("[data-ichi-label]"))
      element.setAttribute("aria-label", state.words[element.dataset.ichiLabel] || "");
  }

  function renderSetup() {
    const setup = state.setup;
    const offer = setup && setup.download ? setup.download.action : "none";
    if (lastOffer !== undefined && offer !== lastOffer) click("look-again");   // other models make what comes next
    lastOffer = offer;
    show(byId("setup-box"), Boolean(setup));
    if (!setup) return;
    setText(byId("setup-title"), setup.title);
    if (setup.open && !setupOpened) byId("setup").open = setupOpened = true;   // once: it can be closed
    const lines = byId("setup-lines");
    const content = JSON.stringify(setup.lines);
    if (lines.dataset.content !== content) {
      lines.dataset.content = content;
      lines.replaceChildren(...setup.lines.map(setupLine));
    }
    const download = setup.download;
    show(byId("download-box"), Boolean(download));
    if (!download) return;
    setText(byId("download-text"), download.text);
    setText(byId("download-status"), download.status);
    show(byId("download-progress"), download.fraction !== null);
    const percent = Math.round((download.fraction || 0) * 1000) / 10;
    byId("download-bar").style.width = `${percent}%`;
    byId("download-progress").setAttribute("aria-valuenow", percent);
    const button = byId("download-button");
    setText(button, download.button);
    button.dataset.action = download.action;
    button.disabled = download.waits;
  }

  function setupLine(line) {
    const item = document.createElement("li"), mark = document.createElement("strong");
    item.dataset.level = line.level;
    mark.textContent = line.mark;
    item.append(mark, ` ${line.text}`);
    if (line.advice) {
      const advice = document.createElement("span");
      advice.className = "ichi-advice";
      advice.textContent = `→ ${line.advice}`;
      item.append(document.createElement("br"), advice);
    }
    return item;
  }

  function shownResult() {
    return (pinned && state.results.find((result) => result.id === pinned)) || state.results[0] || null;
  }

  function renderVideo() {
    const result = shownResult(), video = byId("video");
    document.body.classList.toggle("ichi-has-result", Boolean(result && result.complete));
    show(byId("empty"), !result);
    show(video, Boolean(result));
    setText(byId("caption"), result ? result.caption : "");
    const link = byId("download");
    show(link, Boolean(result && result.complete));
    if (!result) { video.removeAttribute("src"); return; }
    link.href = result.video; link.download = result.file;
    const url = new URL(result.video, location.href).href;
    if (video.src !== url) {
      video.src = url;
      video.muted = true;
      const started = video.play();
      if (started) started.catch(() => {});
    }
  }

  function renderJob() {
    const job = state.job;
    show(byId("job"), Boolean(job));
    if (!job) { byId("preview").removeAttribute("src"); return; }
    setText(byId("job-name"), job.label);
    setText(byId("status"), job.status);
    setText(byId("left"), job.left);
    setText(byId("notices"), job.notices.join("\n"));
    const percent = Math.round(job.fraction * 100);
    byId("bar").style.width = `${percent}%`;
    byId("progress").setAttribute("aria-valuenow", percent);
    byId("progress").setAttribute("aria-valuetext", job.status);
    const preview = byId("preview");
    show(preview, Boolean(job.preview));
    preview.alt = state.words["live.preview"];
    if (!job.preview) preview.removeAttribute("src");
    else if (preview.getAttribute("src") !== job.preview) preview.src = job.preview;
  }

  function renderFailure() {
    const failure = state.failure && !dismissed.has(state.failure.id) ? state.failure : null;
    show(byId("failure"), Boolean(failure));
    if (!failure) return;
    setText(byId("failure-title"), failure.title);
    setText(byId("failure-text"), failure.text);
    byId("failure-copy").dataset.ichiCopy = failure.details;
  }

  function renderJobs(box, list, items) {
    show(box, items.length > 0);
    const known = new Map([...list.children].map((row) => [row.dataset.id, row]));
    items.forEach((item, index) => {
      const row = known.get(item.id) || queueRow(item.id);
      known.delete(item.id);
      fillRow(row, item);
      if (list.children[index] !== row) list.insertBefore(row, list.children[index] || null);
    });
    known.forEach((row) => row.remove());
  }

  function queueRow(id) {
    const row = byId("queue-row").content.firstElementChild.cloneNode(true);
    row.dataset.id = id;
    return row;
  }

  function fillRow(row, item) {
    const part = (name) => row.querySelector(`.ichi-${name}`);
    row.dataset.state = item.state;
    setText(part("queue-state"), item.state_text);
    setText(part("queue-prompt"), item.prompt);
    setText(part("queue-name"), item.name);
    setText(part("queue-kept"), item.kept || "");
    const image = part("queue-thumbnail");
    if (item.thumbnail && image.getAttribute("src") !== item.thumbnail) image.src = item.thumbnail;
    show(image, Boolean(item.thumbnail));
    for (const action of ["finish", "short", "show", "up", "remove", "discard"]) {
      const button = part(`queue-${action}`);
      show(button, item.actions.includes(action));
      const word = state.words[action === "discard" && sure.has(item.id) ? "live.discard_sure" : `live.${action}`];
      setText(button, word);
      button.setAttribute("aria-label", `${word}: ${item.name}`);
    }
    part("queue-short").title = state.words["live.short_info"];
    row.classList.toggle("ichi-shown", shownResult() !== null && shownResult().id === item.id);
  }

  function show(element, visible) { if (element) element.hidden = !visible; }
  function setText(element, text) { if (element && element.textContent !== text) element.textContent = text; }

  /* ---- doing -------------------------------------------------------------------------------------------------- */

  function post(path) {
    return fetch(new URL(path, base), { method: "POST", headers: { "X-Endframe-Ichi": "1" } }).catch(() => {});
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.ichiCopy !== undefined) copy(button);
    else if (button.id === "ichi-download-button") post(`download/${button.dataset.action}`);
    else if (button.id === "ichi-failure-close") { dismissed.add(state.failure.id); render(); }
    else if (button.dataset.ichiClose !== undefined) button.closest(".ichi-message").remove();
    const row = button.closest(".ichi-jobs [data-id]");
    if (!row) return;
    const action = button.className.replace("ichi-queue-", "");
    if (action === "show") { pinned = row.dataset.id; render(); }
    else if (action === "discard" && !sure.has(row.dataset.id)) askAgain(row.dataset.id);
    else post(`jobs/${encodeURIComponent(row.dataset.id)}/${action}`);
  });

  function askAgain(id) {                          // what is deleted is gone: only the second click deletes
    sure.add(id);
    render();
    setTimeout(() => { sure.delete(id); render(); }, 5000);
  }

  function copy(button) {
    const done = () => { setText(button, (state && state.words["live.copied"]) || "✓"); };
    const text = button.dataset.ichiCopy;
    const fallback = () => {        // pages that are not on localhost may not use the clipboard
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      done();
    };
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, fallback);
    else fallback();
  }

  function chime(good) {
    const Context = window.AudioContext || window.webkitAudioContext;
    if (!Context) return;
    const context = new Context(), notes = good ? [659, 880] : [440, 330];
    notes.forEach((frequency, index) => {
      const tone = context.createOscillator(), volume = context.createGain();
      const begin = context.currentTime + index * 0.18;
      tone.frequency.value = frequency;
      volume.gain.setValueAtTime(0.0001, begin);
      volume.gain.exponentialRampToValueAtTime(0.2, begin + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.0001, begin + 0.5);
      tone.connect(volume).connect(context.destination);
      tone.start(begin);
      tone.stop(begin + 0.55);
    });
    window.ichi.chimes += 1;
    setTimeout(() => context.close(), 1500);
  }

  /* ---- files dropped anywhere --------------------------------------------------------------------------------- */

  const isForPicture = (event) => {
    const files = [...event.dataTransfer.files];
    const box = event.target.closest && event.target.closest(".ichi-picture");
    return box && files.length === 1 && /^image\//.test(files[0].type);
  };
  const isTooMuch = (files, event) => {            // Gradio would send nothing and show nothing
    if ([...files].reduce((sum, file) => sum + file.size, 0) <= Number(byId("live").dataset.maxUpload)) return false;
    event.preventDefault();
    event.stopImmediatePropagation();
    click("too-large");
    return true;
  };
  const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");

  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();                      // else the browser would open what is dropped
    document.body.classList.add("ichi-dragging");
  }, true);
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("ichi-dragging");
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target.type === "file" && isTooMuch(event.target.files, event)) event.target.value = "";
  }, true);
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("ichi-dragging");
    if (!hasFiles(event) || isTooMuch(event.dataTransfer.files, event) || isForPicture(event)) return;   // one picture on a picture's widget is Gradio's
    event.preventDefault();
    event.stopPropagation();
    const input = document.querySelector("#inbox-box input[type=file]");
    if (!input) return;
    const transfer = new DataTransfer();
    for (const file of event.dataTransfer.files) transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);

  /* ---- beginning ---------------------------------------------------------------------------------------------- */

  window.ichi = {
    connect, chimes: 0,
    shownJob: () => { const result = state && shownResult(); return result ? result.id : ""; },
    runningJob: () => (state && state.job ? state.job.id : ""),
    pageLanguage: () => language,
    word: (key) => (state && state.words[key]) || "",
  };

  const waiting = setInterval(() => {            // Gradio builds the page after this file has run
    const live = byId("live");
    if (!live) return;
    clearInterval(waiting);
    connect(language || live.dataset.language);
    render();
  }, 50);
  new MutationObserver(() => {                   // what Gradio draws (again) shows the state at once
    const fresh = [byId("live"), byId("work"), byId("queue-box"), byId("setup-box"), document.getElementById("stop")]
      .filter((element) => element && !element.dataset.ichiSeen);
    for (const element of fresh) element.dataset.ichiSeen = "1";
    if (fresh.length) render();
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
