// Keeps the page of an enrolment up to date. The server renders; this only asks for the same page
// again when the stream says that something happened, and puts in what differs.
"use strict";

(() => {
  const main = document.querySelector("main[data-progress-id]");
  const id = main.dataset.progressId;
  const address = location.pathname;
  const headline = document.getElementById("headline");
  const offline = document.getElementById("offline");
  const SLOWLY = 5000;

  // The address may carry the claim to a profile. Once that was fetched, nobody should find it in
  // the history or send it to somebody else.
  function forgetClaim() {
    const fetched = document.getElementById("step-profile").dataset.tone === "done";
    if (fetched && location.pathname !== `/enroll/${id}`) {
      history.replaceState(null, "", `/enroll/${id}`);
    }
  }

  // The page comes as it is for those without script: with times in UTC, and with a link that does
  // not count as leaving it, or browsers would stop reloading it. Here leaving does no harm, and a
  // profile that is not to be had is answered by a page that says why.
  function prepare(root) {
    for (const link of root.querySelectorAll("a[download]")) link.removeAttribute("download");
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      time.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    }
  }

  function put(fresh) {
    prepare(fresh);
    for (const element of main.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(element.id);
      if (other && !element.isEqualNode(other)) element.replaceWith(document.adoptNode(other));
    }
    // The same element, so that screen readers say what is new in it.
    const said = fresh.getElementById("headline");
    if (said && said.textContent !== headline.textContent) headline.textContent = said.textContent;
    if (said) headline.dataset.tone = said.dataset.tone;
    document.title = fresh.title;
    forgetClaim();
  }

  let asking = false;
  let again = false;
  async function refresh() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      do {
        again = false;
        const answer = await fetch(address, { cache: "no-store" });
        if (!answer.ok) throw new Error(`answered ${answer.status}`);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        const shown = fresh.querySelector("main[data-progress-id]");
        if (shown) main.dataset.ended = shown.dataset.ended;
        put(fresh);
        offline.hidden = true;
      } while (again);
    } catch {
      offline.hidden = false;
    } finally {
      asking = false;
    }
  }

  // Where streams are refused, or there are as many as may be.
  async function poll() {
    await refresh();
    if (main.dataset.ended !== "true") setTimeout(poll, SLOWLY);
  }

  function follow() {
    const source = new EventSource(`/v1/enrollments/${id}`);
    let lost;
    source.onopen = () => {
      clearTimeout(lost);
      offline.hidden = true;
    };
    source.addEventListener("progress", (event) => {
      refresh();
      if (JSON.parse(event.data).ended) source.close();
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) {
        if (main.dataset.ended !== "true") setTimeout(poll, SLOWLY);
      } else {
        // It comes back by itself, mostly before anybody would notice.
        clearTimeout(lost);
        lost = setTimeout(() => { offline.hidden = false; }, SLOWLY);
      }
    };
  }

  prepare(document);
  forgetClaim();
  if (main.dataset.ended !== "true") follow();
})();
