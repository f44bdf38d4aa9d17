// Sorts and filters the table of networks. Without this script, it is an ordinary table.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.networks");
  if (!table) return;
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const text = (row, column) => row.cells[column].innerText.trim();
  const number = (value) => Number(value.replaceAll(",", ""));
  const column = (name) => heads.findIndex((head) => head.innerText.trim().startsWith(name));
  const [data, weights, cpu, gpu] = ["data", "weights", "CPU", "GPU"].map(column);
  const errors = ["top-1", "top-5"].map(column);  // comparable within a dataset only
  const datasets = ["ImageNet", "CIFAR-10", "MNIST"];

  const bar = document.createElement("div");
  bar.className = "networks-bar";
  bar.innerHTML = `
    <input type="search" placeholder="Filter by name, such as se_resnet" aria-label="Name">
    <select aria-label="Data"><option value="">all data</option></select>
    <label><input type="checkbox" name="weights"> with weights</label>
    <label><input type="checkbox" name="measured"> with times</label>
    <output></output>`;
  table.parentElement.before(bar);
  const [name, select] = [bar.querySelector("[type=search]"), bar.querySelector("select")];
  const [published, measured] = bar.querySelectorAll("[type=checkbox]");
  for (const value of datasets) select.add(new Option(value));

  const filter = () => {
    const words = name.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const row of rows) {
      const cells = [text(row, 0).toLowerCase(), row.cells[0].querySelector("a").href].join(" ");
      row.hidden = !(
        words.every((word) => cells.includes(word)) &&
        (!select.value || text(row, data) === select.value) &&
        (!published.checked || text(row, weights)) &&
        (!measured.checked || text(row, cpu) || text(row, gpu))
      );
      count += !row.hidden;
    }
    bar.querySelector("output").value = `${count} of ${rows.length} networks`;
  };
  bar.addEventListener("input", filter);

  const order = [...rows];  // as in the page, by family
  const sort = (index, descending) => {
    const sorted = [...order].sort((first, second) => {
      if (errors.includes(index) && text(first, data) !== text(second, data)) {
        return datasets.indexOf(text(first, data)) - datasets.indexOf(text(second, data));
      }
      const [a, b] = [text(first, index), text(second, index)];
      if (!a || !b) return !a - !b;  // what is unknown comes last
      const difference = isNaN(number(a)) ? a.localeCompare(b) : number(a) - number(b);
      return descending ? -difference : difference;
    });
    table.tBodies[0].append(...sorted);
  };
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.ariaSort === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.ariaSort = descending ? "descending" : "ascending";
      sort(index, descending);
    });
  });
  filter();
});
