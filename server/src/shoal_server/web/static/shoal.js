// What HTML can't do by itself: the menu of narrow screens, dialogs that ask before something is done, and word of
// whether the page is live. Everything else is htmx; without scripts the pages still show and forms still work.
"use strict";

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.dialog);
    if (dialog) { event.preventDefault(); dialog.showModal(); }
    return;
  }
  if (event.target.closest("[data-close]")) {
    event.preventDefault();
    event.target.closest("dialog").close();
    return;
  }
  if (event.target.closest(".menu-toggle")) {
    const side = document.querySelector(".side");
    const open = side.classList.toggle("open");
    side.querySelector(".menu-toggle").setAttribute("aria-expanded", String(open));
    return;
  }
  const copier = event.target.closest("[data-copy]");
  if (copier && navigator.clipboard) {
    navigator.clipboard.writeText(copier.dataset.copy).then(() => {
      copier.textContent = "copied";
      setTimeout(() => { copier.textContent = "copy"; }, 1500);
    });
  }
});

// What somebody has unfolded stays so when a live part of the page is brought up to date.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");

function tellPulse(state, text) {
  for (const pulse of document.querySelectorAll(".pulse")) {
    pulse.dataset.state = state;
    pulse.textContent = text;
  }
}

document.addEventListener("htmx:sseOpen", () => tellPulse("live", "live"));
document.addEventListener("htmx:sseError", () => tellPulse("lost", "reconnecting"));

// A session that ended while the page was open: go and log in again.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) { window.location.reload(); }
});
