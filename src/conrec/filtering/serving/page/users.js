// Choosing a user: type a part of the ID, take one of some, or let chance choose. The pattern is ARIA's combobox.

import { ask, ServiceError } from "./api.js";
import { byId, count, el } from "./parts.js";

const PAUSE = 150;
const LIMIT = 20;

export class UserChooser {
  /** `chosen(userId)` is called with the choice; `failed(error)` where the service could not say. */
  constructor(chosen, failed) {
    this.chosen = chosen;
    this.failed = failed;
    this.input = byId("user");
    this.list = byId("users");
    this.active = -1;
    this.found = [];
    this.input.addEventListener("input", () => this.#later());
    this.input.addEventListener("focus", () => this.input.select());
    this.input.addEventListener("click", () => this.#open());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => setTimeout(() => this.close(), 150)); // after a click into the list
    byId("user-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take(this.active >= 0 ? this.found[this.active].user_id : this.input.value);
    });
    byId("random").addEventListener("click", () => this.#random());
  }

  close() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.#activate(-1);
  }

  #take(user) {
    this.close();
    if (user) this.chosen(user);
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#open(), PAUSE);
  }

  async #open() {
    this.request?.abort();
    this.request = new AbortController();
    // What was chosen is no search: opening the list then shows some users.
    const query = this.input.value === this.current ? "" : this.input.value.trim();
    try {
      const { users } = await ask("v1/page/users", { query: { query, limit: LIMIT }, signal: this.request.signal });
      this.#show(users);
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error);
    }
  }

  #show(users) {
    this.found = users;
    this.list.replaceChildren(
      ...users.map((user, position) => {
        const option = el("li", { role: "option", id: `user-${position}`, "aria-selected": "false" }, el("span", { class: "id" }, user.user_id), el("span", { class: "quiet small" }, events(user)));
        option.addEventListener("pointerdown", (event) => event.preventDefault()); // keeps the focus in the field
        option.addEventListener("click", () => this.#take(user.user_id));
        return option;
      }),
    );
    this.list.hidden = !users.length;
    this.input.setAttribute("aria-expanded", String(users.length > 0));
    byId("users-status").textContent = users.length ? "" : "No user has this in the ID. Enter asks for it all the same.";
    this.#activate(-1);
  }

  #key(event) {
    if (event.key === "Escape") return this.close();
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return undefined;
    event.preventDefault();
    if (this.list.hidden) return this.#open();
    const step = event.key === "ArrowDown" ? 1 : -1;
    const all = this.found.length;
    return this.#activate(this.active < 0 ? (step > 0 ? 0 : all - 1) : (this.active + step + all) % all);
  }

  #activate(position) {
    this.active = position;
    [...this.list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === position)));
    if (position < 0) this.input.removeAttribute("aria-activedescendant");
    else {
      this.input.setAttribute("aria-activedescendant", `user-${position}`);
      this.list.children[position].scrollIntoView({ block: "nearest" });
    }
  }

  async #random() {
    try {
      const { users } = await ask("v1/page/random-user");
      if (!users.length) throw new ServiceError("refused", "There is no user to choose from.");
      this.#take(users[0].user_id);
    } catch (error) {
      this.failed(error);
    }
  }

  /** Show who is chosen. */
  set(user) {
    this.current = user;
    this.input.value = user;
    byId("users-status").textContent = "";
  }
}

/** What the log holds of a user. */
export function events(user) {
  if (user.disliked === null) return "";
  return `${count(user.disliked)} disliked, ${count(user.liked)} liked`;
}
