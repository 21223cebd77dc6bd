/* The choice of a model: those on this machine, and those of the catalogue that fit the memory cap. */
import {make} from "/page/text.js";

const $ = id => document.getElementById(id);
const LOOK_MS = 500;

const size = bytes => bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;

export class Models {
  /* `call` sends requests; `changed` is called when a change has ended. */
  constructor(call, changed) {
    Object.assign(this, {call, changed, found: null, looking: false});
    $("models").addEventListener("change", () => this.offer());
    $("change").addEventListener("submit", event => {
      event.preventDefault();
      this.change({method: "POST", body: JSON.stringify({name: $("models").value})});
    });
    $("cancel").addEventListener("click", () => this.change({method: "DELETE"}));
  }

  /* Show the models, and how a change goes until it ends. */
  async look() {
    if (this.looking) return;
    this.looking = true;
    let changed = false;
    try {
      for (;;) {
        this.show(await (await this.call("/page/models")).json());
        if (!this.found.loading) break;
        changed = true;
        await new Promise(done => setTimeout(done, LOOK_MS));
      }
    } catch (error) {
      $("loading").textContent = error.message;
    } finally {
      this.looking = false;
    }
    if (changed) this.changed();
  }

  /* Begin a change, or cancel its download. */
  async change(request) {
    $("cancel").disabled = true;
    try {
      await this.call("/page/model", request);
    } catch (error) {
      $("loading").textContent = error.message;
      return;
    }
    await this.look();
  }

  show(found) {
    const {models, loading, problem} = this.found = found;
    $("models").replaceChildren(...models.map(({name, is_here, size: bytes}) => {
      const option = make("option", is_here ? name : `${name}, a download of ${size(bytes)}`);
      option.value = name;
      return option;
    }));
    $("models").value = loading?.name ?? found.current;
    $("models").disabled = Boolean(loading);
    $("change").hidden = models.length < 2;
    $("use").hidden = Boolean(loading?.can_cancel);
    $("cancel").hidden = !loading?.can_cancel;
    $("cancel").disabled = false;
    $("share").hidden = !loading;
    $("share").firstElementChild.style.width = `${100 * (loading?.share ?? 0)}%`;
    $("loading").textContent = loading ? loading.doing : problem;
    if (loading) $("model").textContent = `${loading.name}: ${loading.doing}, ${Math.round(100 * loading.share)}%`;
    this.offer();
  }

  /* Say what the button would do. */
  offer() {
    const {models, current, loading} = this.found, chosen = models.find(({name}) => name === $("models").value);
    $("use").textContent = chosen?.is_here ? "Load" : `Download ${size(chosen?.size ?? 0)} and load`;
    $("use").disabled = Boolean(loading) || chosen?.name === current;
  }
}
