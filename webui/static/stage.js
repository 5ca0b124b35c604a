/* The stage: the one place that shows the present state, as large as there is room. It shows the start image with the part
   of it that becomes the video, the preview of what is being made, the video so far, or a finished one; below it what goes
   on, and what can be done. Knows no server: `page.js` hands it the newest state. */
(() => {
  "use strict";
  if (window.ichiStage) return;

  const byId = (id) => document.getElementById(`ichi-${id}`);
  const show = (element, visible) => { element.hidden = !visible; };
  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const STEP = 0.02;       // that an arrow key moves the frame by
  const LEAST_ROOM = 0.004;   // of the picture: less is no room to move in

  let state = null;
  let pinned = null;       // the id of a job whose video is shown on request
  let wantsPicture = false;   // a picture was chosen after the newest video came
  let wantsPreview = false;   // of a running job that has a video so far
  let ran, endShown;       // the ids of the job that ran at the last look, and of the end that was told
  const known = new Set();   // the ids of all results there were
  let told = "";           // the job and the number of its notices
  let pictureShown = null, hasActed = false;
  const dismissed = new Set(JSON.parse(sessionStorage.getItem("ichi-dismissed") || "[]"));   // ends that were closed in this tab

  /* ---- which of its views ------------------------------------------------------------------------------------------ */

  const isRunning = (result) => state.job && result.id === state.job.id;

  function shownResult() {
    const wanted = pinned && [...state.results, ...state.recent.videos].find((result) => result.id === pinned);
    if (wanted) return wanted;
    const first = state.results[0] || null;
    return state.job ? state.results.find(isRunning) || null : first;
  }

  function view() {
    const result = shownResult(), isPinned = Boolean(result && result.id === pinned);
    if (state.job && !isPinned) return result && !wantsPreview ? "video" : "running";
    const ended = outcome(), isOlder = ended && result && ended.id !== result.id && ended.id === state.ended?.id;   // than what is told below
    if ((wantsPicture || isOlder) && !isPinned && picture()) return "ready";
    return result ? "video" : picture() ? "ready" : "empty";
  }

  function render(next) {
    state = next;
    const running = state.job && state.job.id;
    if (state.job && dismissed.delete(nameOf(state.job))) keepDismissed();   // its next end is another one
    const ends = state.outcome && state.outcome.id !== endShown;   // also one so quick that nobody saw it run
    if (running !== ran || ends || state.results.some(({ id }) => !known.has(id))) wantsPicture = false;   // not for one that went
    ran = running;
    endShown = state.outcome && state.outcome.id;
    for (const { id } of state.results) known.add(id);
    const now = view();
    byId("screen").dataset.view = now;
    document.body.dataset.ichiView = now;
    show(byId("empty"), now === "empty");
    renderFrame(now === "ready");
    renderVideo(now === "video");
    renderPreview(now === "running");
    renderJob();
    renderNotices();
    renderOutcome();
    renderSwitch(now);
    renderTag(now);
  }

  function renderTag(now) {
    const result = shownResult(), [, , width, height] = frameSize();
    const texts = {
      empty: "",
      ready: width ? `${width} × ${height}` + (byId("crop").dataset.axis ? ` · ${state.words["live.frame"]}` : "") : "",
      running: state.job && state.job.preview ? state.words["live.preview"] : "",
      video: result && !result.complete ? result.caption : "",
    };
    setText(byId("tag"), texts[now]);
    show(byId("tag"), texts[now] !== "");
  }

  /* One click from the video so far to the preview and back, or from any video to what is going on. */
  function renderSwitch(now) {
    const button = byId("switch"), hasSoFar = state.job && state.job.has_video;
    const key = !state.job || (now === "running" && !hasSoFar) ? "" : now === "running" ? "live.so_far" : "live.back";
    show(button, key !== "");
    setText(button, key && state.words[key]);
  }

  function toggle() {
    if (byId("screen").dataset.view === "running") wantsPreview = false;
    else { pinned = null; wantsPreview = true; }
    render(state);
  }

  /* ---- the start image, and its part that becomes the video ------------------------------------------------------------ */

  const field = () => document.querySelector("#position input");
  const currentPosition = () => Number((field() && field().value) || 0.5);
  const PICTURES = "#start-image img, #several-images :is(.grid-container, .thumbnails) img";
  const picture = () => [...document.querySelectorAll(PICTURES)].find(({ src }) => src.includes(".view.png"));   // which the server has read

  /* The picture's width and height, and the video's; the latter are 0 where they are unknown. */
  function frameSize() {
    const image = byId("picture"), outlook = document.querySelector("#outlook [data-width]");
    const wanted = outlook ? [Number(outlook.dataset.width), Number(outlook.dataset.height)] : [0, 0];
    return [image.naturalWidth, image.naturalHeight, ...wanted];
  }

  function renderFrame(isShown) {
    const chosen = picture(), frame = byId("frame"), image = byId("picture"), crop = byId("crop");
    if (isShown && chosen && image.src !== chosen.src) image.src = chosen.src;
    const [width, height, videoWidth, videoHeight] = frameSize();
    show(frame, isShown && Boolean(chosen) && width > 0);   // its shape is known with the picture's
    if (frame.hidden) return;
    frame.style.setProperty("--shape", width / height);
    show(crop, videoWidth > 0);
    if (!videoWidth) return;
    const wide = Math.min(1, (videoWidth / videoHeight) / (width / height));
    const high = Math.min(1, (width / height) / (videoWidth / videoHeight));
    const position = Math.min(1, Math.max(0, currentPosition()));
    crop.style.width = `${wide * 100}%`;
    crop.style.height = `${high * 100}%`;
    crop.style.left = `${(1 - wide) * position * 100}%`;
    crop.style.top = `${(1 - high) * position * 100}%`;
    crop.dataset.axis = 1 - wide > LEAST_ROOM ? "x" : 1 - high > LEAST_ROOM ? "y" : "";
    crop.tabIndex = crop.dataset.axis ? 0 : -1;
    crop.setAttribute("aria-orientation", crop.dataset.axis === "y" ? "vertical" : "horizontal");
    crop.setAttribute("aria-valuenow", Math.round(position * 100));
  }

  function move(position) {
    const input = field();
    if (!input) return;
    input.value = String(Math.min(1, Math.max(0, Math.round(position * 1000) / 1000)));
    input.dispatchEvent(new Event("input", { bubbles: true }));
    renderFrame(true);
  }

  function drag(event) {
    const crop = byId("crop"), axis = crop.dataset.axis;
    if (event.target !== crop || !axis) return;
    event.preventDefault();
    crop.focus();
    crop.setPointerCapture(event.pointerId);
    const frame = byId("frame").getBoundingClientRect(), box = crop.getBoundingClientRect();
    const room = axis === "x" ? frame.width - box.width : frame.height - box.height;
    const at = (moved) => (axis === "x" ? moved.clientX : moved.clientY);
    const begin = at(event), before = currentPosition();
    crop.onpointermove = (moved) => move(before + (at(moved) - begin) / room);
    crop.onpointerup = crop.onpointercancel = () => { crop.onpointermove = null; };
  }

  function nudge(event) {
    if (event.target !== byId("crop") || !byId("crop").dataset.axis) return;
    const before = currentPosition();
    const steps = { ArrowLeft: -STEP, ArrowUp: -STEP, ArrowRight: STEP, ArrowDown: STEP, Home: -1, End: 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    move(before + steps[event.key]);
  }

  /* The picture in its place was changed by somebody, or came back. */
  function lookAtPicture() {
    const chosen = picture(), address = chosen ? chosen.src : "";
    if (address === pictureShown) return;
    wantsPicture = address !== "" && (hasActed || pictureShown !== null);   // not one that came back with a reload
    pictureShown = address;
    if (wantsPicture) pinned = null;
    if (state) window.ichi.render();                     // a job that was told of stands in its list now
  }

  /* ---- the video, the preview, what is going on -------------------------------------------------------------------------- */

  function renderVideo(isShown) {
    const result = isShown ? shownResult() : null, video = byId("video");
    document.body.classList.toggle("ichi-has-result", Boolean(result && result.complete));
    document.body.classList.toggle("ichi-no-settings", Boolean(result && !result.has_settings));
    show(video, isShown);
    show(byId("caption-line"), Boolean(result && result.complete));   // else it stands on the picture
    const ours = result && state.results.find(({ complete, file }) => complete && file === result.file);   // its job is known
    setText(byId("caption"), result ? (ours || result).caption : "");
    const link = byId("download");
    show(link, Boolean(result && result.complete));
    if (!result) {
      if (video.hasAttribute("src")) { video.removeAttribute("src"); video.load(); }
      return;
    }
    link.href = result.video; link.download = result.file;
    if (video.src === new URL(result.video, location.href).href) return;
    video.src = result.video;
    video.muted = true;
    const started = video.play();
    if (started) started.catch(() => {});
  }

  function renderPreview(isShown) {
    const preview = byId("preview"), job = state.job;
    const address = (job && (job.preview || job.thumbnail)) || "";
    preview.classList.toggle("ichi-still", Boolean(job && !job.preview));   // the start image, until there is one
    show(preview, isShown && address !== "");
    preview.alt = state.words["live.preview"];
    if (!address) preview.removeAttribute("src");
    else if (isShown && preview.getAttribute("src") !== address) preview.src = address;
  }

  function renderJob() {
    const job = state.job;
    show(byId("job"), Boolean(job));
    document.body.classList.toggle("ichi-busy", Boolean(job));
    if (!job) return;
    setText(byId("job-name"), job.label);
    setText(byId("status"), job.status);
    setText(byId("left"), job.left);
    const percent = Math.round(job.fraction * 100);
    byId("bar").style.width = `${percent}%`;
    byId("progress").setAttribute("aria-valuenow", percent);
    byId("progress").setAttribute("aria-valuetext", job.status);
  }

  /* They stand where nothing is below them that they could move; a new one is also told where one looks. */
  function renderNotices() {
    const notices = state.job ? state.job.notices : [], last = notices[notices.length - 1];
    if (!byId("notices")) return;                        // not there yet
    const count = `${state.job && state.job.id} ${notices.length}`;
    setText(byId("notices"), notices.join("\n"));
    if (last && count !== told) ichiToast.tell(last);
    told = count;
  }

  /* What an earlier job came to is not told below a picture that was chosen since; what stops the whole app is. */
  function outcome() {
    const ended = state.outcome;
    const isTold = ended && !state.job && !dismissed.has(nameOf(ended)) && (ended.stays || !wantsPicture);
    return isTold ? ended : null;
  }

  const nameOf = ({ id }) => `${state.server} ${id}`;   // what stops the whole app has the same id in each of its runs

  function keepDismissed() { sessionStorage.setItem("ichi-dismissed", JSON.stringify([...dismissed])); }

  function dismiss() {
    if (outcome()) dismissed.add(nameOf(outcome()));
    keepDismissed();
  }

  function renderOutcome() {
    const ended = outcome();
    show(byId("failure"), Boolean(ended));
    if (!ended) return;
    byId("failure").classList.toggle("ichi-error", ended.failed);
    byId("failure").classList.toggle("ichi-note", !ended.failed);
    setText(byId("failure-title"), ended.title);
    setText(byId("failure-text"), ended.text);
    show(byId("failure-finish"), ended.can_finish);
    setText(byId("failure-finish"), ended.finish);
    show(byId("failure-copy"), ended.failed);
    byId("failure-copy").dataset.ichiCopy = ended.details;
  }

  for (const kind of ["pointerdown", "keydown", "drop"])
    document.addEventListener(kind, () => { hasActed = true; }, true);
  document.addEventListener("pointerdown", drag);
  document.addEventListener("keydown", nudge);
  document.addEventListener("click", (event) => { if (event.target.id === "ichi-switch") toggle(); });
  document.addEventListener("load", (event) => {
    if (event.target.id === "ichi-picture" && state) render(state);
  }, true);
  new MutationObserver((changes) => {
    const concerns = (change) => change.target.closest && change.target.closest("#pictures, #outlook");
    if (!changes.some(concerns)) return;
    lookAtPicture();
    if (state && byId("frame") && !byId("frame").hidden) render(state);
  }).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ["src", "data-width"] });

  window.ichiStage = {
    render,
    shownResult: () => (state && view() === "video" ? shownResult() : null),
    outcome: () => (state ? outcome() : null),
    pin: (id) => { pinned = id; },
    dismiss,
  };
})();
