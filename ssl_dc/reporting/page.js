"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const said = document.getElementById("said");

  // The tooltip of a point is its text, and its image if it has one. Nothing else of a point is shown.
  const formatTooltip = (point, asText) => {
    const source = data.thumbnails[point.image];
    return (source ? `<img src="${source}" alt="">` : "") + asText(point.about);
  };
  const options = { renderer: "svg", actions: false, ast: true, tooltip: { formatTooltip } };

  const pointer = (target, kind, x, y) =>
    target.dispatchEvent(new PointerEvent(kind, { bubbles: true, clientX: x, clientY: y }));

  // The arrow keys go from point to point as a mouse would, so that the chart answers in the same way.
  const listen = (place) => {
    let number = -1;
    let current = null;
    const leave = () => {
      if (current) {
        current.classList.remove("current");
        pointer(current.ownerSVGElement, "pointerout", -1, -1);
      }
      document.getElementById("vg-tooltip-element")?.classList.remove("visible");
      current = null;
    };
    const go = (points, wanted) => {
      leave();
      number = Math.max(0, Math.min(points.length - 1, wanted));
      current = points[number];
      current.classList.add("current");
      current.scrollIntoView({ block: "nearest", inline: "nearest" });
      const box = current.getBoundingClientRect();
      const x = box.x + box.width / 2;
      const y = box.y + box.height / 2;
      const top = document.elementFromPoint(x, y);
      const target = top && place.contains(top) ? top : current;
      pointer(target, "pointerover", x, y);
      pointer(target, "pointermove", x, y);
      said.textContent = `${current.getAttribute("aria-label")} (${number + 1} of ${points.length})`;
    };
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    place.addEventListener("keydown", (event) => {
      const points = [...place.querySelectorAll(".role-mark > path[aria-label]")];
      if (!points.length) return;
      if (event.key in steps) go(points, number + steps[event.key]);
      else if (event.key === "Home") go(points, 0);
      else if (event.key === "End") go(points, points.length - 1);
      else if (event.key === "Escape") leave();
      else return;
      event.preventDefault();
    });
    place.addEventListener("blur", leave);
  };

  const draw = (script) => {
    const place = document.getElementById(script.dataset.chart);
    // The drawing gets an element of its own: vega-embed changes the role and the name of the one that it is given.
    const drawing = place.appendChild(document.createElement("div"));
    return vegaEmbed(drawing, JSON.parse(script.textContent), options).then(() => {
      drawing.removeAttribute("aria-label");
      drawing.setAttribute("aria-labelledby", place.getAttribute("aria-labelledby"));
      listen(place);
    });
  };
  Promise.all([...document.querySelectorAll("script[data-chart]")].map(draw)).then(() => {
    document.documentElement.dataset.drawn = "yes";
  });

  if (data.refreshSeconds) {
    const button = document.getElementById("pause");
    let timer = setTimeout(() => location.reload(), 1000 * data.refreshSeconds);
    button.addEventListener("click", () => {
      clearTimeout(timer);
      button.setAttribute("aria-pressed", "true");
      button.textContent = "It stays as it is now";
    });
  }
})();
