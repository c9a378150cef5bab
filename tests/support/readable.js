// Returns what is unreadable on a page as a list of messages: text that is small, of low contrast, clipped or overlapped
// by other text, and anything outside the window. Text that is for screen readers only is ignored.
(() => {
  const SMALLEST = 12, CONTRAST = 4.5;
  const complaints = [];
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const over = (top, below) => {
    const [r, g, b, a = 1] = top;
    return [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    let color = [255, 255, 255];
    const chain = [];
    for (let each = element; each; each = each.parentElement) chain.unshift(each);
    for (const each of chain) {
      const found = channels(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) color = over(found, color);
    }
    return color;
  };
  const shown = (element) => element.checkVisibility() && !element.closest(".hidden");
  const quoted = (element) => JSON.stringify(element.textContent.trim().slice(0, 40));

  const texts = [...document.querySelectorAll("body *")].filter(
    (each) => !each.closest("svg") && shown(each) && [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
  );
  for (const each of texts) {
    const style = getComputedStyle(each);
    if (parseFloat(style.fontSize) < SMALLEST) complaints.push(`${quoted(each)} has ${style.fontSize}`);
    const found = contrast(channels(style.color), behind(each));
    if (found < CONTRAST) complaints.push(`${quoted(each)} has a contrast of ${found.toFixed(2)}`);
    if (each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll"))
      complaints.push(`${quoted(each)} reaches beyond the window`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    if (!shown(svg)) continue;
    const page = behind(svg), frame = svg.getBoundingClientRect(), boxes = [];
    for (const text of svg.querySelectorAll("text")) {
      const style = getComputedStyle(text), box = text.getBoundingClientRect();
      const size = parseFloat(style.fontSize) * text.getScreenCTM().a;
      if (size < SMALLEST) complaints.push(`${quoted(text)} in a chart has ${size.toFixed(1)}px`);
      let ground = page;
      for (let each = text.previousElementSibling; each; each = each.previousElementSibling) {
        const mark = each.getBoundingClientRect(), look = getComputedStyle(each);
        const middle = box.left + box.width / 2;
        const covers = mark.left <= middle && mark.right >= middle && mark.top <= box.top + 3 && mark.bottom >= box.bottom - 3;
        if (each.localName === "rect" && covers && look.fill !== "none") {
          const fill = channels(look.fill);
          ground = over([...fill.slice(0, 3), (fill[3] ?? 1) * parseFloat(look.fillOpacity)], page);
          break;
        }
      }
      const found = contrast(channels(style.fill), ground);
      if (found < CONTRAST) complaints.push(`${quoted(text)} in a chart has a contrast of ${found.toFixed(2)}`);
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        complaints.push(`${quoted(text)} reaches beyond its chart`);
      for (const [other, name] of boxes) {
        const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
        const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        if (wide > 1 && high > 4) complaints.push(`${quoted(text)} is written over ${name}`);
      }
      boxes.push([box, quoted(text)]);
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) complaints.push("the page is wider than the window");
  return complaints;
})()
