// The lists: candidates with what became of them, the predict set, the history.

import { byId, count, el, heading, named, picture, several, similarity, when } from "./parts.js";

/** A candidate of the list. */
export class Candidate {
  /**
   * card: id, title, categories, picture; judged: what /v1/explain said of it; label: {later}, from the log;
   * rank: of the nearest prediction in the predict set, or null.
   */
  constructor(card, judged, label, rank) {
    this.card = card;
    this.judged = judged;
    this.label = label;
    this.rank = rank;
    this.dropped = false;
    this.said = null;
    this.pill = el("span", { class: "pill" });
    this.why = el("p", { class: "why" });
    this.fill = el("span", { class: "fill" });
    this.element = el(
      "li",
      { class: "card" },
      picture(card),
      el("div", { class: "body" }, heading(card, this.pill), this.#badges(), this.why, this.#details()),
      el("div", { class: "score" }, el("span", { class: "number" }, similarity(judged.similarity)), el("span", { class: "track", "aria-hidden": "true" }, this.fill)),
    );
  }

  /** Draw its similarity on the scale of the dial. */
  scale(dial) {
    const value = this.judged.similarity;
    this.fill.style.width = `${value === null ? 0 : dial.place(value) * 100}%`;
  }

  /** Say whether it is dropped at a threshold (null: its category's). `otherwise`: why it is kept although it lies above it. */
  mark(dropped, threshold, otherwise) {
    this.dropped = dropped;
    const said = `${dropped} ${dropped ? threshold : ""} ${otherwise}`;
    if (said === this.said) return; // of a thousand candidates the slider changes few
    this.said = said;
    this.element.classList.toggle("gone", dropped);
    this.pill.textContent = dropped ? "Dropped" : "Kept";
    this.why.replaceChildren(...this.#reason(threshold, otherwise));
  }

  #reason(threshold, otherwise) {
    const { similarity: value, predicted, past_dislikes: past, reason } = this.judged;
    if (value === null || !predicted) return [inPlainWords(reason)];
    const place = this.rank === null ? "" : `, no. ${this.rank} of the predict set`;
    const nearest = el("b", { dir: "auto" }, named(predicted));
    if (otherwise) return ["Close to ", nearest, place, ` – ${otherwise}`];
    if (!this.dropped) return ["Nearest: ", nearest, place];
    const limit = threshold === null ? "the threshold of its category" : similarity(threshold);
    const before = past.length ? ["; disliked before: ", el("b", { dir: "auto" }, named(past[0])), ` (${similarity(past[0].similarity)})`] : [];
    return ["Too close to ", nearest, place, ` – ${similarity(value)} is above ${limit}`, ...before];
  }

  #badges() {
    const { past, later } = this.label;
    const made = [];
    if (past) made.push(el("span", { class: `badge ${past.feedback < 0 ? "disliked" : "liked"}` }, `${past.feedback < 0 ? "disliked" : "liked"} ${when(past.timestamp)}`));
    else if (later) made.push(el("span", { class: `badge ${later}` }, `${later} in the days after`));
    return made.length ? el("p", { class: "badges" }, ...made) : null;
  }

  #details() {
    const { predicted, past_dislikes: past } = this.judged;
    if (!predicted) return null;
    const list = past.length
      ? el("ul", {}, ...past.map((one) => el("li", {}, el("span", { dir: "auto" }, named(one)), el("span", { class: "quiet" }, ` ${similarity(one.similarity)}, disliked ${when(one.timestamp)}`))))
      : el("p", { class: "quiet" }, "None is known here: without the log of the run, or without a dislike in it, there is nothing to compare with.");
    return el(
      "details",
      {},
      el("summary", {}, "Why"),
      el("dl", {}, el("dt", {}, "Nearest prediction"), el("dd", {}, el("span", { dir: "auto" }, named(predicted)), " ", el("code", {}, predicted.sid)), el("dt", {}, "Nearest past dislikes"), el("dd", {}, list)),
    );
  }
}

/** A reason of the service for a candidate that it cannot judge. */
function inPlainWords(reason) {
  const known = {
    "unknown user": "Kept: there is no predict set for this user.",
    "unknown item": "Kept: the catalogue of this run does not know this item.",
    "empty predict set": "Kept: the predict set of this user is empty.",
    "kept: store unreachable": "Kept: the store cannot be reached now, so nothing is known of this user.",
  };
  return known[reason] ?? `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`;
}

/** The predict set, best first. Returns an element for each item ID, with a place for what it drops. */
export function showSet(predicted) {
  const drops = new Map();
  byId("set").replaceChildren(
    ...predicted.map((one, position) => {
      const chip = el("span", { class: "badge gone", hidden: true });
      if (one.item_id !== null) drops.set(one.item_id, chip);
      return el(
        "li",
        {},
        el("span", { class: "rank" }, String(position + 1)),
        picture(one),
        el("div", { class: "body" }, heading(one), el("p", { class: "small" }, el("code", {}, one.sid), el("span", { class: "quiet", title: "The model's own score: higher is more certain." }, one.score === null ? "" : ` score ${one.score.toFixed(2)}`), " ", chip)),
      );
    }),
  );
  return drops;
}

/** Say at each prediction how many candidates it drops. */
export function showDrops(chips, candidates) {
  const sums = new Map();
  for (const one of candidates) if (one.dropped) sums.set(one.judged.predicted.item_id, (sums.get(one.judged.predicted.item_id) ?? 0) + 1);
  for (const [item, chip] of chips) {
    chip.hidden = !sums.has(item);
    chip.textContent = `drops ${count(sums.get(item) ?? 0)} here`;
  }
}

/** One side of the history; `most`: so many events can be had. */
export function showSide(side, total, events, most, more) {
  byId(`${side}-title`).textContent = `${side === "liked" ? "Liked" : "Disliked"} (${count(total)})`;
  byId(side).replaceChildren(
    ...events.map((one) => el("li", {}, picture(one), el("div", { class: "body" }, heading(one), el("p", { class: "quiet small" }, when(one.timestamp))))),
  );
  if (!events.length) byId(side).append(el("li", { class: "quiet none" }, side === "liked" ? "Nothing liked in the log." : "Nothing disliked in the log."));
  const button = byId(`more-${side}`);
  button.hidden = events.length >= Math.min(total, most);
  button.textContent = `Show more of ${several(total, "event", "events")}`;
  button.onclick = more;
}
