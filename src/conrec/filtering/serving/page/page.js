// The page: which user, which candidates, which threshold; the address keeps all three.

import { alive, ask, setToken, token } from "./api.js";
import { Candidate, showDrops, showSet, showSide } from "./cards.js";
import { Dial } from "./dial.js";
import { candidateIds, cardsOf } from "./lists.js";
import { byId, count, el, several, share, when } from "./parts.js";
import { fromAddress, state, toAddress } from "./state.js";
import { events, UserChooser } from "./users.js";

const HISTORY = 8; // events of either side to begin with
const LONGEST = 500; // and at most

let facts = null; // what the service says of itself
let candidates = [];
let predicted = []; // the predict set, best first
let chips = new Map(); // what stands at each prediction, by item ID
let confirmed = null; // what the service itself drops at a threshold that was chosen here
let turn = new AbortController(); // ends the questions of the user before
let list = new AbortController(); // and of the list before
let asking = new AbortController();
let settling = 0;
let retrying = 0;

// ---- what may go wrong ----

function failed(error) {
  if (error.name === "AbortError") return;
  if (error.kind === "token") return askForToken(error);
  console.debug(error);
  const stopped = error.kind === "stopped";
  byId("notice-text").textContent = stopped
    ? `${error.message} It may have been stopped, or the connection is down. What is below is from before; this page goes on by itself as soon as the service is back.`
    : (error.message ?? "Something on this page failed.");
  byId("notice").hidden = false;
  if (stopped) retryLater();
}

function retryLater() {
  clearTimeout(retrying);
  retrying = setTimeout(async () => {
    if (await alive()) start();
    else retryLater();
  }, 3000);
}

function askForToken() {
  byId("main").hidden = true;
  byId("notice").hidden = true;
  byId("token-form").hidden = false;
  if (token()) byId("token-text").textContent = "The service did not accept this token. Check it with whoever runs the service.";
  setToken("");
  byId("token").value = "";
  byId("token").focus();
}

// ---- the threshold ----

const dial = new Dial((threshold, settled) => {
  state.threshold = threshold;
  dial.set(threshold);
  mark();
  clearTimeout(settling);
  settling = setTimeout(settle, settled ? 0 : 250);
});

/** When the slider rests: the address takes its place, and the service says what it drops itself. */
async function settle() {
  toAddress(false);
  if (state.threshold === null || !state.user || !candidates.length) return;
  asking.abort();
  asking = new AbortController();
  const threshold = state.threshold;
  try {
    const body = { user_id: state.user, item_ids: candidates.map((one) => one.card.item_id), threshold };
    const answer = await ask("v1/filter", { body, signal: asking.signal });
    confirmed = {
      threshold,
      dropped: new Set(answer.dropped.map((one) => one.item_id)),
      spared: new Map(answer.spared.map((one) => [one.item_id, one.reason])),
    };
    mark();
  } catch (error) {
    failed(error);
  }
}

/** What becomes of a candidate, and why it is kept where the threshold alone would drop it. */
function fate(one) {
  const { similarity: value, dropped, reason } = one.judged;
  if (value === null) return [false, ""];
  if (state.threshold === null) return [dropped, !dropped && reason.startsWith("kept") ? reason : ""];
  const above = Math.fround(value) > Math.fround(state.threshold); // the filter compares in 32 bits
  if (!above || confirmed?.threshold !== state.threshold) return [above, ""];
  const there = confirmed.dropped.has(one.card.item_id);
  return [there, there ? "" : (confirmed.spared.get(one.card.item_id) ?? "kept by the service")];
}

function mark() {
  const byCategory = state.threshold === null && facts?.by_category;
  for (const one of candidates) {
    const [dropped, otherwise] = fate(one);
    one.mark(dropped, byCategory ? null : dial.threshold, otherwise);
  }
  const gone = candidates.filter((one) => one.dropped).length;
  byId("dropped-count").textContent = candidates.length ? count(gone) : "–";
  byId("kept-count").textContent = candidates.length ? count(candidates.length - gone) : "–";
  byId("dropped-share").textContent = candidates.length ? share(gone / candidates.length) : "–";
  byId("candidates").style.setProperty("--threshold", String(dial.place(dial.threshold)));
  dial.markTicks(candidates.map((one) => one.dropped));
  showDrops(chips, candidates);
  choose();
}

/** Show the part of the list that is asked for. */
function choose() {
  const wanted = byId("show").value;
  let shown = 0;
  for (const one of candidates) {
    one.element.hidden = wanted !== "all" && one.dropped !== (wanted === "dropped");
    shown += !one.element.hidden;
  }
  byId("nothing")?.remove();
  if (candidates.length && !shown)
    byId("candidates").append(el("li", { id: "nothing", class: "quiet none" }, wanted === "dropped" ? "Nothing is dropped at this threshold." : "Nothing is kept at this threshold."));
}

function order() {
  const given = byId("order").value === "given";
  const rows = given ? candidates : [...candidates].sort((one, other) => (other.judged.similarity ?? -2) - (one.judged.similarity ?? -2));
  byId("candidates").replaceChildren(...rows.map((one) => one.element));
  choose();
}

// ---- what the service says of itself ----

async function readFacts() {
  facts = await ask("v1/page/summary");
  byId("about").textContent = `Model ${facts.model}, ${several(facts.users, "user", "users")}, ${several(facts.items, "item", "items")}; predict sets written ${when(facts.written_at)}`;
  byId("statement").textContent = facts.statement;
  byId("promise").hidden = !facts.statement;
  byId("rates-words").textContent = facts.curve.length
    ? `On validation data; false filters: the dropped share of ${facts.rate === "user" ? "a user’s likes" : "all likes"}.`
    : "";
  dial.setCalibration(facts);
  byId("threshold-note").textContent = facts.note;
  document.querySelector("[data-source=anchor]").hidden = !facts.has.anchors;
  document.querySelector("[data-source=search]").hidden = !facts.has.items;
  document.querySelector("[data-source=popular]").textContent = facts.has.log ? "Popular" : "Some items";
}

// ---- a user ----

const chooser = new UserChooser((user) => {
  state.user = user;
  toAddress(true);
  load();
}, failed);

async function load() {
  for (const one of [turn, list, asking]) one.abort();
  byId("notice").hidden = true;
  turn = new AbortController();
  const { signal } = turn;
  chooser.set(state.user);
  dial.set(state.threshold);
  empty();
  if (!state.user) return suggest(signal);
  byId("main").classList.add("chosen");
  // What cannot be had of one of them does not keep the others from being shown.
  const parts = await Promise.allSettled([predictSet(signal), past(HISTORY, HISTORY, signal), readFacts()]);
  const wrong = parts.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
  wrong.forEach(failed);
  if (signal.aborted || wrong.some((one) => one.kind === "stopped" || one.kind === "token")) return undefined;
  return loadList().catch(failed);
}

function empty() {
  candidates = [];
  predicted = [];
  chips = new Map();
  confirmed = null;
  for (const id of ["candidates", "set", "disliked", "liked", "person"]) byId(id).replaceChildren();
  for (const id of ["set-status", "past-status", "candidates-status"]) byId(id).textContent = "";
  byId("person").hidden = true;
  byId("main").classList.toggle("chosen", Boolean(state.user));
  dial.setTicks([]);
  mark();
}

/** Nobody is chosen yet: some users to begin with. */
async function suggest(signal) {
  try {
    const { users } = await ask("v1/page/users", { query: { limit: 8 }, signal });
    const buttons = users.map((user) => {
      const button = el("button", { type: "button" }, el("span", { class: "id" }, user.user_id), el("span", { class: "quiet small" }, events(user)));
      button.addEventListener("click", () => chooser.chosen(user.user_id));
      return el("li", {}, button);
    });
    const words = users.length ? "Choose a user to see what the filter would drop for them. Some of them:" : "There is no user in the store yet.";
    byId("person").replaceChildren(el("p", {}, words), el("ul", { class: "some" }, ...buttons));
    byId("person").hidden = false;
  } catch (error) {
    failed(error);
  }
}

/** The predict set, or that there is none. */
async function predictSet(signal) {
  const answer = await ask("v1/predict-set", { query: { user_id: state.user }, signal });
  if (!answer.known_user) {
    byId("person").replaceChildren(
      el("p", {}, el("b", {}, "This user has no predict set, so the filter keeps everything. ")),
      el("p", { class: "quiet" }, "It never drops what it cannot judge. Sets are written for users with events in the log; a user who is new since then gets one when they are written again."),
    );
    byId("person").hidden = false;
    byId("set-status").textContent = "None for this user.";
    return;
  }
  const cards = await cardsOf(answer.predictions.map((one) => one.item_id).filter((one) => one !== null), signal);
  predicted = answer.predictions.map((one) => ({ ...cards.get(one.item_id), ...one, title: cards.get(one.item_id)?.title ?? one.title }));
  byId("set-status").textContent = predicted.length
    ? `${several(predicted.length, "item", "items")} that the model expects this user to dislike, best first; predicted ${when(answer.predicted_at)}.`
    : "It is empty: the model found nothing that this user may dislike. Everything is kept.";
  chips = showSet(predicted);
}

async function past(disliked, liked, signal) {
  if (!facts.has.log) {
    byId("past-status").textContent = "This service has no log, so there is no history to show.";
    byId("more-liked").hidden = byId("more-disliked").hidden = true;
    return;
  }
  const answer = await ask("v1/page/history", { query: { user_id: state.user, limit: Math.min(LONGEST, Math.max(disliked, liked)) }, signal });
  byId("past-status").textContent = answer.known ? "" : "The log has no event of this user.";
  const more = (side, shown) => () => past(...(side === "liked" ? [disliked, shown] : [shown, liked]), turn.signal).catch(failed);
  showSide("disliked", answer.disliked_count, answer.disliked.slice(0, disliked), LONGEST, more("disliked", disliked * 4));
  showSide("liked", answer.liked_count, answer.liked.slice(0, liked), LONGEST, more("liked", liked * 4));
}

// ---- the list of candidates ----

async function loadList() {
  list.abort();
  list = new AbortController();
  const { signal } = list;
  const user = state.user;
  const given = await candidateIds(signal, facts.most);
  showSource(given.source);
  byId("candidates-status").textContent = given.words;
  candidates = [];
  confirmed = null;
  if (given.items.length && user) {
    const ids = given.items.map((one) => one.item_id);
    const [answer, cards] = await Promise.all([
      ask("v1/explain", { body: { user_id: user, item_ids: ids }, signal }),
      cardsOf(ids, signal, user),
    ]);
    const ranks = new Map(predicted.map((one, position) => [one.item_id, position + 1]));
    candidates = answer.candidates.map((judged, position) => {
      const card = cards.get(judged.item_id);
      const label = { later: given.items[position].later, past: card.past };
      return new Candidate(card, judged, label, ranks.get(judged.predicted?.item_id) ?? null);
    });
  }
  for (const one of candidates) one.scale(dial);
  dial.setTicks(candidates.map((one) => one.judged.similarity));
  order();
  mark();
  if (state.threshold !== null) settle();
}

function showSource(source) {
  for (const button of document.querySelectorAll("[data-source]")) button.setAttribute("aria-pressed", String(button.dataset.source === source));
  byId("search-form").hidden = source !== "search";
  byId("paste-form").hidden = source !== "pasted";
}

function newList() {
  toAddress(false);
  byId("notice").hidden = true;
  loadList().catch(failed);
}

for (const button of document.querySelectorAll("[data-source]"))
  button.addEventListener("click", () => {
    state.source = button.dataset.source;
    showSource(state.source);
    if (state.source === "search") byId("search").focus();
    if (state.source === "pasted") byId("paste").focus();
    newList();
  });
byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.search = byId("search").value.trim();
  newList();
});
byId("paste-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.pasted = [...new Set(byId("paste").value.split(/\r?\n/).map((one) => one.trim()).filter(Boolean))];
  newList();
});
byId("show").addEventListener("change", choose);
byId("order").addEventListener("change", order);
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("candidates-title").focus();
});

// ---- begin ----

async function start() {
  clearTimeout(retrying);
  try {
    await readFacts();
  } catch (error) {
    failed(error);
    return;
  }
  byId("notice").hidden = true;
  byId("token-form").hidden = true;
  byId("main").hidden = false;
  fromAddress();
  byId("search").value = state.search;
  byId("paste").value = state.pasted.join("\n");
  toAddress(false);
  load();
}

byId("notice-retry").addEventListener("click", start);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  start();
});
addEventListener("popstate", () => {
  if (facts) {
    fromAddress();
    load();
  }
});
start();
