/* The live half of the page: shows what the server's jobs are doing, whichever page started them.
   The server sends whole states with all their words (Server-Sent Events); this file only puts them on the page.
   Everything that the user fills in belongs to Gradio and is not touched here. */
(() => {
  "use strict";
  if (window.ichi) return;

  const byId = (id) => document.getElementById(`ichi-${id}`);
  const base = new URL("ichi/", document.baseURI || location.href);
  const OWN = { "X-Endframe-Ichi": "1" };
  let state = null;        // the newest state that the server sent
  let source = null;       // the open EventSource
  let language = "";       // of the words in `state`
  let newestShown = null;  // the id of the job that ran last
  let serverId = null;
  let lastEnded;           // id of the newest ended job; undefined before the first state
  let lastActivity;        // which job ended last, and which one runs
  let lostTimer = null;
  let isAway = false;      // until the same app is heard again
  let setupOpened = false;
  let lastOffer;           // what the download offers; undefined before the first state
  let isSure = false;      // outdated weights are to be deleted: that was clicked once

  /* ---- receiving ---------------------------------------------------------------------------------------------- */

  function connect(wanted) {
    if (source && wanted === language) return;
    if (source) source.close();
    language = wanted;
    if (byId("language")) byId("language").value = language;
    document.documentElement.lang = { "zh-tw": "zh-Hant-TW" }[language] || language;
    source = listen(new URL(`events?lang=${encodeURIComponent(language)}`, base).href, {
      state: (text) => receive(JSON.parse(text)),
      open: () => { clearTimeout(lostTimer); lostTimer = null; show(byId("lost"), isWaiting); },
      lost: () => { isAway = true; lostTimer = lostTimer || setTimeout(() => show(byId("lost"), true), 3000); },
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
    isAway = false;
    state = next;
    const isNew = Boolean(state.job) && state.job.id !== newestShown;
    if (isNew) {
      newestShown = state.job.id;                       // a new job is what one wants to see
      ichiStage.pin(null);
    }
    render();
    if (isNew && wantsStage) document.getElementById("stage").scrollIntoView({ block: "nearest" });   // on a phone it stands below
    if (isNew) wantsStage = false;
    announceEnd();
  }

  function announceEnd() {
    const newest = state.ended;
    if (lastEnded !== undefined && newest && newest.id !== lastEnded) {
      byId("announcer").textContent = newest.text;
      if (state.sound) chime(newest.good);
    }
    const activity = [newest && newest.id, state.job && state.job.id].join();
    if (lastEnded !== undefined && activity !== lastActivity) click("look-again");   // how long the next one takes, what Start does
    lastActivity = activity;
    lastEnded = newest ? newest.id : null;
  }

  function click(hidden) {
    const button = document.getElementById(hidden);
    if (button) button.click();
  }

  /* ---- showing ------------------------------------------------------------------------------------------------ */

  function render() {
    if (!state || !["live", "queue-box", "unfinished-box", "setup-box"].every(byId)) return;
    document.title = state.title;
    renderWords();
    renderSetup();
    ichiStage.render(state);
    const outcome = ichiStage.outcome();               // its job stands on the stage
    renderJobs("unfinished", state.unfinished.filter((item) => !outcome || item.id !== outcome.id), 1);
    renderJobs("queue", state.queue, 2);           // a single job is not worth a list
    setText(byId("waiting"), state.waiting);
    show(byId("clear"), state.queue.filter((item) => item.state === "waiting").length > 1);
    setText(document.getElementById("start"), state.start);
    window.ichiStrip(state.recent, ichiStage.shownResult());
    const stop = document.getElementById("stop");
    setText(stop, state.stop);
    if (stop) stop.disabled = !state.can_stop;
  }

  function renderWords() {
    document.documentElement.style.setProperty("--ichi-sending", JSON.stringify(state.words["live.sending"]));
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
    setText(byId("outdated-delete"), state.words[isSure ? "live.discard_sure" : "live.discard"]);
    const download = setup.download;
    show(byId("download-box"), Boolean(download));
    if (!download) return;
    setText(byId("download-text"), download.text);
    setText(byId("licences-title"), download.licences.title);
    const licences = byId("licences"), items = JSON.stringify(download.licences.items);
    if (licences.dataset.content !== items) {
      licences.dataset.content = items;
      licences.replaceChildren(...download.licences.items.map(licence));
    }
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

  function licence(entry) {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = link.textContent = entry.address;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    item.append(`${entry.text} `, link);
    return item;
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
    if (line.deletable) {
      const button = document.createElement("button"), buttons = document.createElement("div");
      button.type = "button";
      button.id = "ichi-outdated-delete";
      buttons.className = "ichi-buttons";
      buttons.append(button);
      item.append(buttons);
    }
    return item;
  }

  function renderJobs(name, items, fewest) {
    const list = byId(name);
    show(byId(`${name}-box`), items.length >= fewest);
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
    for (const action of ["finish", "short", "show", "up", "edit", "release", "remove", "discard"]) {
      const button = part(`queue-${action}`);
      show(button, item.actions.includes(action));
      const word = state.words[`live.${action}`];
      setText(button, word);
      button.setAttribute("aria-label", `${word}: ${item.name}`);
    }
    part("queue-short").title = state.words["live.short_info"];
    const shown = ichiStage.shownResult();
    row.classList.toggle("ichi-shown", shown !== null && shown.id === item.id);
  }

  function show(element, visible) { if (element) element.hidden = !visible; }
  function setText(element, text) { if (element && element.textContent !== text) element.textContent = text; }

  /* ---- doing -------------------------------------------------------------------------------------------------- */

  async function post(path) {
    const address = new URL(`${path}?lang=${encodeURIComponent(language)}`, base);
    try {
      const answer = await fetch(address, { method: "POST", headers: OWN });
      const { said } = await answer.json();
      if (said) window.ichiToast.show(said);
    } catch { /* the app is away, which the page says by itself */ }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.ichiCopy !== undefined) copy(button);
    else if (button.id === "ichi-download-button") post(`download/${button.dataset.action}`);
    else if (button.id === "ichi-outdated-delete") {
      if (isSure) post("outdated/delete");
      else askAgain();
    }
    else if (button.id === "stop") stop(event);
    else if (button.id === "show-folder") showFolder();
    else if (button.id === "ichi-clear") post("queue/clear");
    else if (button.dataset.ichiUndo !== undefined) undo(button.dataset.ichiUndo);
    else if (button.id === "ichi-failure-finish") post(`jobs/${encodeURIComponent(ichiStage.outcome().id)}/finish`);
    else if (button.id === "ichi-failure-close") { ichiStage.dismiss(); render(); }
    else if (button.id === "ichi-sample" || button.closest("#ichi-sample")) click("sample");
    else if (button.dataset.ichiOffer !== undefined) refuse(button.dataset.ichiOffer);
    const row = button.closest(".ichi-jobs [data-id]");
    if (!row) return;
    const action = button.className.replace("ichi-queue-", "");
    if (action === "show") { ichiStage.pin(row.dataset.id); render(); byId("screen").scrollIntoView({ block: "nearest" }); }
    else if (action === "edit") { edited = row.dataset.id; click("edit-job"); }
    else if (action === "release") refuse(`release:${row.dataset.id}`);
    else post(`jobs/${encodeURIComponent(row.dataset.id)}/${action}`);
  });

  document.addEventListener("change", ({ target }) => {
    if (target.id === "ichi-language") document.querySelector(`#language input[value="${target.value}"]`).click();
  });

  function showFolder() {
    const { id } = ichiStage.shownResult(), isRecent = state.recent.videos.some((video) => video.id === id);
    post(`${isRecent ? "recent" : "jobs"}/${encodeURIComponent(id)}/folder`);
  }

  let edited = "";
  function stop({ detail }) {
    const { job } = state, isDouble = detail > 1;   // its second click would take the first one back
    if (job && !isDouble) post(`jobs/${encodeURIComponent(job.id)}/${job.stopping ? "keep" : "stop"}`);
  }

  function undo(wanted) {
    window.ichiToast.close();
    if (wanted.includes(":")) refuse(wanted);
    else post(wanted);
  }

  function askAgain() {                            // what is deleted is gone: only the second click deletes
    isSure = true;
    render();
    setTimeout(() => { isSure = false; render(); }, 5000);
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

  /* ---- Start ----------------------------------------------------------------------------------------------------- */

  const DOUBLE_CLICK = 800;   // milliseconds: clicks that follow each other faster are one
  const STARTS = "#start, #again";
  let isAnswered = true, lastClick = 0, isTaking = false, waitsForFiles = false;
  let wantsStage = false;     // its job is the next one that is shown

  document.addEventListener("click", (event) => {
    const button = event.target.closest(STARTS);
    if (!button) return;
    const isHeld = button.getAttribute("aria-disabled") === "true";
    lastClick = performance.now();
    const waits = isTaking && button.id === "start";
    if (isHeld || waits) event.stopImmediatePropagation();
    if (isHeld) return;
    button.setAttribute("aria-disabled", "true");
    wantsStage = !(state && state.job);
    if (waits) waitsForFiles = true;
    else isAnswered = false;
    release();
  }, true);

  /* What fills the form is asked for once: the undo of a second time would bring back what the first one has put there. */
  const FILLS = "#take-settings, #continue, .ichi-queue-edit, #ichi-sample, #ichi-strip [data-action]";
  document.addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest(FILLS)) event.stopImmediatePropagation();
  }, true);

  function release() {
    const rest = lastClick + DOUBLE_CLICK - performance.now();
    if (rest > 0) setTimeout(release, rest);
    else if (isAnswered && !waitsForFiles) letClick();
  }

  function letClick() {
    for (const button of document.querySelectorAll(STARTS)) button.removeAttribute("aria-disabled");
  }

  function answered() { isAnswered = true; release(); }

  function giveUp() { isTaking = waitsForFiles = false; release(); }

  function taken() {      // Gradio lets Start wait for a picture in its place, not for what goes through "Open..."
    isTaking = false;
    if (!waitsForFiles) return;
    waitsForFiles = false;
    letClick();
    if (!document.querySelector("#message .ichi-error")) click("start");
  }

  let refusal = "", said = "";                     // the latter by the server, about an upload that it refused
  function refuse(code) { refusal = code; click("refuse"); }

  const plainFetch = window.fetch;
  window.fetch = (...request) => {
    const isUpload = /\/upload(\?|$)/.test(String(request[0].url || request[0]));
    if (isUpload) request[1] = { ...request[1], headers: { ...request[1]?.headers, "Accept-Language": language } };
    const answer = plainFetch(...request);
    if (isUpload) {
      answer.then((response) => {
        const isOurs = /^text\/plain/.test(response.headers.get("content-type"));   // not a proxy's page
        said = !response.ok && isOurs ? response.clone().text() : "";
        if (!response.ok) giveUp();
      }, () => { giveUp(); ichiToast.tell(state.words["page.not_sent"]); });   // Gradio says nothing then
    }
    return answer;
  };

  /* ---- Gradio's own words, in English, which nobody sees ---------------------------------------------------------- */

  async function hear(toast) {
    const text = toast.textContent, sentence = /HTTP \d+:/.test(text) && (await said);
    isDead = isDead || /Connection Lost/.test(text);   // Gradio sends nothing more until the page is loaded anew
    if (/Connection (Lost|errored)|fetch|NetworkError/i.test(text)) waitForApp();
    else refuse(sentence ? `said:${sentence}` : "not_sent");
  }

  let isWaiting = false, isDead = false;
  async function waitForApp() {                    // the stream may live on, or not know yet that it does not
    if (isWaiting) return;
    isWaiting = isAway = true;
    show(byId("lost"), true);
    const asks = () => plainFetch(new URL("hello", base)).then((answer) => answer.ok, () => false);
    while (!await asks()) await new Promise((go) => setTimeout(go, 1500));
    if (isDead) { location.reload(); return; }
    isWaiting = false;
    answered();
    show(byId("lost"), false);
  }

  /* ---- the memory of the form: this tab's own, and the app's for the next start ------------------------------------------- */

  let isOpen = false, hasActed = false, remembered = "";   // what was there comes back first; only a person changes it
  for (const kind of ["pointerdown", "keydown", "input", "change", "drop", "paste"])
    document.addEventListener(kind, ({ isTrusted }) => { hasActed = hasActed || isTrusted; }, true);

  function keep(form) {
    sessionStorage.setItem("ichi-form", form);
    remember();
  }

  function remember() {
    const form = sessionStorage.getItem("ichi-form") || "";
    if (!isOpen || !hasActed || form === remembered) return;
    remembered = form;
    plainFetch(new URL("form", base), { method: "POST", headers: OWN, body: form }).catch(() => { remembered = ""; });
  }

  /* ---- beginning ---------------------------------------------------------------------------------------------- */

  window.ichi = {
    connect, render, answered, taken, post, refuse, chimes: 0,
    isAway: () => isAway,
    taking: () => { isTaking = true; },
    loaded: (code) => { connect(code); ichiTyped.restore(); },
    play: (id) => { ichiStage.pin(id); render(); },
    refusal: () => refusal,
    shownJob: () => { const result = ichiStage.shownResult(); return result ? result.id : ""; },
    editedJob: () => edited,
    runningJob: () => (state && state.job ? state.job.id : ""),
    pageLanguage: () => language,
    keep, opened: () => { isOpen = true; remember(); },
    kept: () => sessionStorage.getItem("ichi-form") || "",
    word: (key) => (state && state.words[key]) || "",
  };

  const waiting = setInterval(() => {            // Gradio builds the page after this file has run
    const live = byId("live");
    if (!live) return;
    clearInterval(waiting);
    render();
  }, 50);
  new MutationObserver((changes) => {            // what Gradio draws (again) shows the state at once
    for (const node of changes.flatMap((change) => [...change.addedNodes]))
      for (const toast of node.querySelectorAll ? node.querySelectorAll("[data-testid=toast-text]") : []) hear(toast);
    const fresh = [byId("live"), byId("queue-box"), byId("setup-box"), byId("strip-box"), document.getElementById("stop"), document.getElementById("start")]
      .filter((element) => element && !element.dataset.ichiSeen);
    for (const element of fresh) element.dataset.ichiSeen = "1";
    if (fresh.length) render();
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
