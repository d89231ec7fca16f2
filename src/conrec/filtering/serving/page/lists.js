// Which candidates are judged, and what is known of items.

import { ask } from "./api.js";
import { count, several, when } from "./parts.js";
import { state } from "./state.js";

/** Cards by item ID; items that the table does not know have their ID alone. */
export async function cardsOf(items, signal, user) {
  const { items: found } = await ask("v1/page/items", { body: { item_ids: items, user_id: user }, signal });
  const cards = new Map(found.map((one) => [one.item_id, one]));
  for (const one of items) if (!cards.has(one)) cards.set(one, { item_id: one, title: null, categories: [], picture: false, past: null });
  return cards;
}

/** IDs of the list that is asked for, with words about it; of pasted ones at most `most`. */
export async function candidateIds(signal, most) {
  if (state.source === "pasted") {
    const items = state.pasted.slice(0, most).map((one) => ({ item_id: one, later: null }));
    const rest = state.pasted.length > items.length ? `; the first ${count(items.length)} of ${count(state.pasted.length)}` : "";
    return { source: "pasted", items, words: items.length ? `${several(items.length, "pasted ID", "pasted IDs")}${rest}` : "Paste IDs above, one a line." };
  }
  if (state.source === "search") {
    const { items } = state.search ? await ask("v1/page/titles", { query: { query: state.search }, signal }) : { items: [] };
    const none = state.search ? "No title has all of these words." : "Search above for words of a title.";
    return { source: "search", items: items.map((one) => ({ item_id: one.item_id, later: null })), words: items.length ? several(items.length, "title found", "titles found") : none };
  }
  const answer = await ask("v1/page/candidates", { query: { user_id: state.user, source: state.source || "any" }, signal });
  const words = {
    anchor: `Candidates drawn for this user's anchor of ${when(answer.timestamp)}`,
    popular: `${state.source === "anchor" ? "The log has no list of candidates for this user. " : ""}What the last days of the log are about, without what this user has rated`,
    catalogue: "Some items of the catalogue; this service has no log",
  };
  return { source: answer.source === "catalogue" ? "popular" : answer.source, items: answer.items, words: words[answer.source] };
}
