/* The files that somebody chooses, drops or pastes anywhere: each goes to the place where it belongs, or is refused in our words.
   Gradio's own ways end in English, or in silence. Knows no job. */
(() => {
  "use strict";
  if (window.ichiFiles) return;

  const isVideo = (file) => /^video\//.test(file.type) || /\.(mp4|m4v|mov)$/i.test(file.name);
  const isTooMuch = (files) =>                     // Gradio would send nothing and show nothing
    [...files].reduce((sum, file) => sum + file.size, 0) > Number(document.getElementById("ichi-live").dataset.maxUpload);
  const hasFiles = (transfer) => [...transfer.types].includes("Files");
  const isFromPage = (transfer) => [...transfer.types].some((type) => /^text\/(uri-list|html)$/.test(type));
  const takesText = (element) => element.closest && element.closest("textarea, input:not([type=file])");

  const inbox = () => document.querySelector("#inbox-box input[type=file]");

  function setFiles(input, files) {                // Gradio sends only what a browser calls a picture; ours looks inside
    const transfer = new DataTransfer(), isForPicture = input.closest(".ichi-picture, #several-images");
    for (const file of files) {
      const isKnown = !isForPicture || /^image\//.test(file.type);
      transfer.items.add(isKnown ? file : new File([file], file.name, { type: "image/png" }));
    }
    input.files = transfer.files;
  }

  function choose(input, files) {
    setFiles(input, files);
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /* ---- pasted ---------------------------------------------------------------------------------------------------------- */

  document.addEventListener("paste", (event) => {
    const files = [...((event.clipboardData || {}).files || [])].filter((file) => /^image\//.test(file.type));
    if (!files.length) return;
    event.preventDefault();
    const places = ["start-image", "end-image"].filter((id) => document.getElementById(id));   // several start images stand elsewhere
    const place = places.find((id) => !document.querySelector(`#${id} img`)) || places[0];
    choose(document.querySelector(`#${place} input[type=file]`), files.slice(0, 1));
  });

  document.addEventListener("click", (event) => {   // Gradio's way ends in English words, or in silence
    const button = event.target.closest(".ichi-picture .source-selection button:last-of-type");
    if (!button) return;
    event.stopImmediatePropagation();
    paste(button.closest(".ichi-picture"));
  }, true);

  async function paste(box) {
    try {
      for (const item of await navigator.clipboard.read()) {
        const kind = item.types.find((type) => /^image\//.test(type));
        if (!kind) continue;
        const file = new File([await item.getType(kind)], `clipboard.${kind.slice(6)}`, { type: kind });
        choose(box.querySelector("input[type=file]"), [file]);
        return;
      }
    } catch { /* it may not be read, or there is none for pages that are not on localhost */ }
    ichi.refuse("nothing_pasted");
  }

  /* ---- chosen ---------------------------------------------------------------------------------------------------------- */

  document.addEventListener("change", (event) => {
    const input = event.target, files = [...(input.files || [])], box = input.closest(".ichi-picture");
    if (input.type !== "file" || !files.length) return;
    const video = box && files.find(isVideo);
    if (isTooMuch(files) || video) { event.stopImmediatePropagation(); input.value = ""; }
    if (isTooMuch(files)) ichi.refuse("upload_too_large");
    else if (video) choose(inbox(), [video]);      // it brings settings
    else {
      if (input === inbox()) ichi.taking();
      setFiles(input, files);
    }
  }, true);

  /* ---- dropped --------------------------------------------------------------------------------------------------------- */

  document.addEventListener("dragstart", (event) => {   // what stands in a place is only a view of the picture
    if (event.target.tagName === "IMG") event.preventDefault();
  }, true);
  document.addEventListener("dragover", (event) => {
    const transfer = event.dataTransfer;
    if (!hasFiles(transfer) && (!isFromPage(transfer) || takesText(event.target))) return;
    event.preventDefault();                        // else the browser would open what is dropped
    document.body.classList.add("ichi-dragging");
  }, true);
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("ichi-dragging");
  }, true);
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("ichi-dragging");
    const transfer = event.dataTransfer, files = [...transfer.files];
    if (!files.length && (!isFromPage(transfer) || takesText(event.target))) return;
    event.preventDefault();
    event.stopPropagation();
    const box = event.target.closest && event.target.closest(".ichi-picture, .ichi-row");
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    if (!files.length) ichi.refuse("address_dropped");
    else if (entries.some((entry) => entry && entry.isDirectory)) ichi.refuse("folder_dropped");
    else if (isTooMuch(files)) ichi.refuse("upload_too_large");
    else if (box && files.length === 1 && !isVideo(files[0])) choose(box.querySelector("input[type=file]"), files);
    else if (box && box.id !== "start-image" && files.length > 1) ichi.refuse("one_picture_here");
    else choose(inbox(), files);
  }, true);

  window.ichiFiles = { choose };
})();
