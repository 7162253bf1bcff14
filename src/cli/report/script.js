'use strict';
// Draws the map. Names come from repositories: they are only ever given to textContent and to the canvas.
(function () {
  const root = document.documentElement;
  let errors = 0;
  root.dataset.errors = '0';
  window.addEventListener('error', function (event) {
    root.dataset.errors = String(++errors);
    root.dataset.error = String(event.message).slice(0, 200);
  });

  const byId = function (id) { return document.getElementById(id); };
  const data = JSON.parse(byId('data').textContent);
  const STATES = ['hydrated', 'cached', 'untouched', 'overlay'];
  const WORDS = ['read', 'cached', 'not fetched', 'changed'];
  const CODES = { h: 0, c: 1, u: 2, o: 3 };
  /* Below so many square pixels cells are drawn together. */
  const LEAST_AREA = 14, LEAST_SIDE = 12, DEPTH_MAX = 40, ROWS_MAX = 40;
  const dirs = data.dirs, average = data.average || 1;

  // Sums of each directory: files, bytes and files of unknown size by state. A parent comes before its children.
  const count = new Float64Array(4 * dirs.length), bytes = new Float64Array(4 * dirs.length), unknown = new Float64Array(4 * dirs.length);
  dirs.forEach(function (dir, at) {
    dir.kids = [];
    const states = dir.t || '';
    for (let i = 0; i < states.length; i++) {
      const slot = 4 * at + CODES[states[i]];
      count[slot]++;
      if (dir.s[i] < 0) unknown[slot]++; else bytes[slot] += dir.s[i];
    }
    (dir.o || []).forEach(function (sum, state) {
      count[4 * at + state] += sum[0]; bytes[4 * at + state] += sum[1]; unknown[4 * at + state] += sum[2];
    });
  });
  for (let at = dirs.length - 1; at > 0; at--) {
    const above = dirs[at].p;
    dirs[above].kids.push(at);
    for (let state = 0; state < 4; state++) {
      count[4 * above + state] += count[4 * at + state];
      bytes[4 * above + state] += bytes[4 * at + state];
      unknown[4 * above + state] += unknown[4 * at + state];
    }
  }

  let area = data.area || 'bytes', current = 0, only = -1, cells = [], chosen = -1;
  const canvas = byId('canvas'), context = canvas.getContext('2d'), tip = byId('tip');

  const weigh = function (files, known, blank) { return area === 'files' ? files : known + blank * average; };
  const slice = function (array, at) { return Array.prototype.slice.call(array, 4 * at, 4 * at + 4); };
  const weights = function (at) {
    return [0, 1, 2, 3].map(function (state) { return weigh(count[4 * at + state], bytes[4 * at + state], unknown[4 * at + state]); });
  };
  const total = function (list) { return list[0] + list[1] + list[2] + list[3]; };

  // What steers a display is shown as what it is.
  const plain = function (name, raw) {
    if (raw) {
      name = '';
      let text = [];
      const flush = function () { if (text.length) name += new TextDecoder().decode(new Uint8Array(text)); text = []; };
      const decoder = new TextDecoder('utf-8', { fatal: true });
      for (let i = 0; i < raw.length;) {
        let length = 0;
        for (let tried = 1; tried <= 4 && !length; tried++) {
          try { decoder.decode(new Uint8Array(raw.slice(i, i + tried))); if (i + tried <= raw.length) length = tried; } catch (error) { /* longer */ }
        }
        if (length) { for (let k = 0; k < length; k++) text.push(raw[i + k]); i += length; } else { flush(); name += '\\x' + raw[i++].toString(16).padStart(2, '0'); }
      }
      flush();
    }
    return name.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, function (c) {
      const code = c.charCodeAt(0);
      return c === '\n' ? '\\n' : c === '\t' ? '\\t' : c === '\r' ? '\\r' : code < 256 ? '\\x' + code.toString(16).padStart(2, '0') : '\\u{' + code.toString(16) + '}';
    });
  };
  const names = function (at) {
    const dir = dirs[at];
    if (!dir.names) {
      dir.names = dir.t ? dir.f.split('/').map(function (name, i) { return plain(name, dir.x && dir.x[i]); }) : [];
    }
    return dir.names;
  };
  const dirName = function (at) { return at === 0 ? data.workspace : plain(dirs[at].n, dirs[at].b); };
  const chain = function (at) { const up = []; for (; at > 0; at = dirs[at].p) up.push(at); return up.reverse(); };
  const path = function (at) { return chain(at).map(dirName).join('/'); };

  const size = function (value) {
    if (value < 1024) return Math.round(value) + ' B';
    let unit = -1;
    do { value /= 1024; unit++; } while (value >= 1023.95 && unit < 4);
    return (value < 99.95 ? value.toFixed(1).replace(/\.0$/, '') : Math.round(value)) + ' ' + ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit];
  };
  const number = function (value) { return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ','); };
  const files = function (value) { return number(value) + (value === 1 ? ' file' : ' files'); };
  const sized = function (known, blank) { return (known || !blank ? size(known) : '') + (blank ? (known ? ' + ' : '') + number(blank) + ' of unknown size' : ''); };

  // The children of a directory, the heaviest first.
  const items = function (at) {
    const dir = dirs[at];
    if (dir.items && dir.itemsOf === area) return dir.items;
    const list = dir.kids.map(function (kid) { return { dir: kid, weight: total(weights(kid)) }; });
    const states = dir.t || '';
    for (let i = 0; i < states.length; i++) {
      const known = dir.s[i];
      list.push({ dir: -1, of: at, file: i, state: CODES[states[i]], size: known, weight: weigh(1, Math.max(known, 0), known < 0 ? 1 : 0) });
    }
    (dir.o || []).forEach(function (sum, state) {
      if (sum[0]) list.push({ dir: -1, of: at, file: -1, state: state, sum: sum, weight: weigh(sum[0], sum[1], sum[2]) });
    });
    list.sort(function (a, b) { return b.weight - a.weight; });
    dir.items = list; dir.itemsOf = area;
    return list;
  };

  // Squarified treemap (Bruls, Huizing, van Wijk): rows along the shorter side while that makes cells squarer.
  const squarify = function (list, x, y, w, h, place) {
    let left = 0;
    list.forEach(function (item) { left += item.weight; });
    let at = 0;
    while (at < list.length && left > 0 && w > 0 && h > 0) {
      const side = Math.min(w, h), scale = w * h / left;
      let sum = 0, end = at, best = Infinity;
      const most = list[at].weight * scale;
      while (end < list.length) {
        const next = sum + list[end].weight * scale, least = list[end].weight * scale;
        const ratio = Math.max(side * side * most / (next * next), next * next / (side * side * Math.max(least, 1e-9)));
        if (ratio > best) break;
        best = ratio; sum = next; end++;
      }
      const thick = sum / side;
      let along = 0;
      for (let i = at; i < end; i++) {
        const long = list[i].weight * scale / thick;
        if (w >= h) place(list[i], x, y + along, thick, long); else place(list[i], x + along, y, long, thick);
        along += long;
        left -= list[i].weight;
      }
      if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
      at = end;
    }
  };

  // One cell for what is too small for its own.
  const gather = function (list, at, space) {
    let sum = 0;
    list.forEach(function (item) { sum += item.weight; });
    const least = LEAST_AREA * sum / Math.max(space, 1);
    let cut = list.length;
    while (cut > 0 && list[cut - 1].weight < least) cut--;
    if (list.length - cut < 2) return list;
    const rest = { dir: -1, of: at, rest: true, files: 0, known: 0, blank: 0, parts: [0, 0, 0, 0], weight: 0 };
    for (let i = cut; i < list.length; i++) {
      const item = list[i];
      rest.weight += item.weight;
      if (item.dir >= 0) {
        const part = weights(item.dir);
        for (let state = 0; state < 4; state++) rest.parts[state] += part[state];
        rest.files += total(slice(count, item.dir)); rest.known += total(slice(bytes, item.dir)); rest.blank += total(slice(unknown, item.dir));
      } else {
        const sums = item.sum || [1, Math.max(item.size, 0), item.size < 0 ? 1 : 0];
        rest.parts[item.state] += item.weight; rest.files += sums[0]; rest.known += sums[1]; rest.blank += sums[2];
      }
    }
    const made = list.slice(0, cut);
    made.push(rest);
    return made.sort(function (a, b) { return b.weight - a.weight; });
  };

  const lay = function (at, x, y, w, h, depth) {
    squarify(gather(items(at), at, w * h), x, y, w, h, function (item, cx, cy, cw, ch) {
      const cell = { x: cx, y: cy, w: cw, h: ch, item: item, depth: depth, label: '' };
      if (item.dir < 0) {
        cell.label = item.rest || item.file < 0 ? '' : names(item.of)[item.file];
        cells.push(cell);
        return;
      }
      // Directories in which there is one directory and nothing else are one cell.
      let inner = item.dir, label = dirName(inner);
      while (dirs[inner].kids.length === 1 && !dirs[inner].t && !dirs[inner].o && label.length < 200) { inner = dirs[inner].kids[0]; label += '/' + dirName(inner); }
      cell.inner = inner; cell.label = label;
      cells.push(cell);
      if (cw < LEAST_SIDE || ch < LEAST_SIDE || cw * ch < 260 || depth >= DEPTH_MAX) return;
      cell.open = true;
      cell.head = cw > 44 && ch > 40 ? 17 : 0;
      const pad = cw > 60 && ch > 50 ? 3 : 1.5;
      lay(inner, cx + pad, cy + pad + cell.head, cw - 2 * pad, ch - 2 * pad - cell.head, depth + 1);
    });
  };

  let colours = {};
  const patterns = function () {
    const style = getComputedStyle(root);
    colours = {};
    ['group', 'group-line', 'ink', 'soft', 'card', 'accent', 'hatch', 'dots'].concat(STATES, STATES.map(function (s) { return 'on-' + s; })).forEach(function (name) {
      colours[name] = style.getPropertyValue('--' + name).trim();
    });
    const tile = function (side, draw) {
      const small = document.createElement('canvas');
      small.width = small.height = side;
      draw(small.getContext('2d'));
      return context.createPattern(small, 'repeat');
    };
    colours.over = [null, tile(8, function (pen) {
      pen.strokeStyle = colours.hatch; pen.lineWidth = 1.6;
      pen.beginPath(); [-8, 0, 8].forEach(function (o) { pen.moveTo(o, 8); pen.lineTo(o + 8, 0); }); pen.stroke();
    }), null, tile(6, function (pen) {
      pen.fillStyle = colours.dots; pen.beginPath(); pen.arc(3, 3, 1.3, 0, 7); pen.fill();
    })];
  };
  const paint = function (state, x, y, w, h) {
    context.globalAlpha = only < 0 || only === state ? 1 : .13;
    context.fillStyle = colours[STATES[state]];
    context.fillRect(x, y, w, h);
    if (colours.over[state] && w > 5 && h > 5) { context.fillStyle = colours.over[state]; context.fillRect(x, y, w, h); }
    context.globalAlpha = 1;
  };
  const write = function (text, x, y, room, colour, bold) {
    context.font = (bold ? '600 ' : '') + '11.5px system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
    context.fillStyle = colour;
    text = text.slice(0, 120);
    const width = context.measureText(text).width;
    if (width > room) {
      const keep = Math.floor(text.length * (room - 8) / width);
      if (keep < 2) return 0;
      text = Array.from(text).slice(0, keep).join('') + '…';
    }
    context.fillText(text, x, y);
    return context.measureText(text).width;
  };
  const drawCell = function (cell) {
    const gap = cell.w > 5 && cell.h > 5 ? .5 : .25, item = cell.item;
    const x = cell.x + gap, y = cell.y + gap, w = Math.max(cell.w - 2 * gap, .5), h = Math.max(cell.h - 2 * gap, .5);
    if (cell.open) {
      context.fillStyle = colours['group-line']; context.fillRect(x, y, w, h);
      context.fillStyle = colours.group; context.fillRect(x + 1, y + 1, w - 2, h - 2);
      if (cell.head) {
        const used = write(cell.label, x + 5, y + 13.5, w - 10, colours.ink, true);
        const guessed = area === 'bytes' && total(slice(unknown, item.dir)) > 0 ? '≈ ' : '';
        const amount = area === 'files' ? number(total(slice(count, item.dir))) : guessed + size(item.weight);
        if (used && w - used > 95) { context.textAlign = 'right'; write(amount, x + w - 5, y + 13.5, 85, colours.soft, false); context.textAlign = 'left'; }
      }
      return;
    }
    const parts = item.rest ? item.parts : item.dir >= 0 ? weights(item.dir) : null;
    if (parts) {
      const all = total(parts) || 1;
      let along = 0;
      for (let state = 0; state < 4; state++) {
        const long = parts[state] / all * (w >= h ? w : h);
        if (long > 0) { if (w >= h) paint(state, x + along, y, long, h); else paint(state, x, y + along, w, long); }
        along += long;
      }
      return;
    }
    paint(item.state, x, y, w, h);
    if (w > 38 && h > 15 && cell.label && (only < 0 || only === item.state)) {
      const colour = colours['on-' + STATES[item.state]];
      const pad = h > 24 ? 14 : h / 2 + 4;
      write(cell.label, x + 5, y + pad, w - 9, colour, false);
      const amount = item.size >= 0 ? size(item.size) : '';
      if (h > 34 && amount && context.measureText(amount).width < w - 9) write(amount, x + 5, y + pad + 14, w - 9, colour, false);
    }
  };
  const draw = function () {
    const begun = performance.now(), map = byId('map');
    const w = map.clientWidth, h = Math.round(Math.max(330, Math.min(w * .58, 720))), ratio = window.devicePixelRatio || 1;
    canvas.style.height = h + 'px';
    canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.textAlign = 'left';
    cells = []; chosen = -1;
    lay(current, 0, 0, w, h, 0);
    cells.forEach(drawCell);
    if (!cells.length) write('Nothing here has a size.', 12, 24, w - 24, colours.soft, false);
    root.dataset.cells = String(cells.length);
    root.dataset.milliseconds = String(Math.round(performance.now() - begun));
    root.dataset.shown = String(current);
  };
  const ring = function () {
    const cell = cells[chosen];
    cells.forEach(drawCell);
    if (!cell) return;
    context.lineWidth = 3; context.strokeStyle = colours.card; context.strokeRect(cell.x + 2, cell.y + 2, Math.max(cell.w - 4, 2), Math.max(cell.h - 4, 2));
    context.lineWidth = 2.5; context.strokeStyle = colours.accent; context.strokeRect(cell.x + 1, cell.y + 1, Math.max(cell.w - 2, 2), Math.max(cell.h - 2, 2));
  };

  const element = function (kind, name, text) {
    const made = document.createElement(kind);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const shares = function (parts) {
    const bar = element('span', 'shares'), all = total(parts) || 1;
    parts.forEach(function (part, state) {
      if (!part) return;
      const piece = element('span', 'part s' + state);
      piece.style.width = (100 * part / all) + '%';
      bar.append(piece);
    });
    return bar;
  };
  const percent = function (part, all) {
    if (!part || !all) return '–';
    const share = 100 * part / all;
    return share < 1 ? '<1 %' : share > 99 && share < 100 ? '>99 %' : Math.round(share) + ' %';
  };
  const spelled = function (counts) {
    return counts.map(function (n, state) { return n ? number(n) + ' ' + WORDS[state] : ''; }).filter(Boolean).join(', ');
  };
  // What a cell is: a heading, what it weighs, and shares where it is more than a file.
  const about = function (cell) {
    const item = cell.item, above = item.of > 0 ? path(item.of) + '/' : '';
    if (item.rest) return { title: above + '…', text: files(item.files) + ' too small to draw, ' + sized(item.known, item.blank), parts: item.parts };
    if (item.dir >= 0) {
      const at = cell.inner, counts = slice(count, at);
      return { title: path(at) + '/', text: files(total(counts)) + ', ' + sized(total(slice(bytes, at)), total(slice(unknown, at))) + ': ' + spelled(counts), parts: weights(at) };
    }
    if (item.file < 0) return { title: above + '…', text: files(item.sum[0]) + ', the smallest, ' + sized(item.sum[1], item.sum[2]) + ', ' + WORDS[item.state] };
    return { title: above + cell.label, text: (item.size < 0 ? 'size not known yet' : size(item.size)) + ', ' + WORDS[item.state] };
  };
  const showTip = function (cell, x, y) {
    if (!cell) { tip.hidden = true; return; }
    const told = about(cell);
    tip.replaceChildren(element('b', '', told.title));
    if (told.parts) tip.append(shares(told.parts));
    tip.append(element('span', '', told.text));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + 'px';
    tip.style.top = (y + 18 + box.height > innerHeight - 8 ? Math.max(8, y - box.height - 12) : y + 18) + 'px';
  };

  const listing = function () {
    const list = items(current), body = byId('rows'), rows = list.slice(0, ROWS_MAX).map(function (item) {
      const row = element('tr'), isDir = item.dir >= 0;
      const counts = isDir ? slice(count, item.dir) : [0, 0, 0, 0];
      let known = Math.max(item.size, 0), blank = item.size < 0 ? 1 : 0, name;
      if (isDir) { known = total(slice(bytes, item.dir)); blank = total(slice(unknown, item.dir)); }
      else if (item.sum) { known = item.sum[1]; blank = item.sum[2]; counts[item.state] = item.sum[0]; }
      else counts[item.state] = 1;
      const first = element('td'), bdi = element('bdi');
      if (isDir) {
        name = element('button', '', dirName(item.dir) + '/');
        name.type = 'button';
        name.addEventListener('click', function () { go(item.dir); });
        bdi.append(name);
      } else bdi.textContent = item.file < 0 ? number(item.sum[0]) + ' small files' : names(current)[item.file];
      first.append(bdi);
      const all = total(counts), state = element('td');
      if (isDir) { const bar = shares(weights(item.dir)); bar.title = spelled(counts); bar.setAttribute('role', 'img'); bar.setAttribute('aria-label', spelled(counts)); state.append(bar); }
      else { const tag = element('span', 'mark s' + item.state); tag.append(element('span', 'swatch'), element('span', '', WORDS[item.state])); state.append(tag); }
      row.append(first, state, element('td', 'n', blank && !known ? 'unknown' : size(known)), element('td', 'n', number(all)),
        element('td', 'n wide', percent(counts[0], all)), element('td', 'n wide', percent(counts[1], all)));
      return row;
    });
    body.replaceChildren.apply(body, rows);
    byId('more').textContent = list.length > rows.length ? number(list.length - rows.length) + ' more entries, all of them smaller' : '';
    byId('inside').textContent = current === 0 ? data.workspace : path(current) + '/';
  };
  const crumbs = function () {
    const nav = byId('crumbs'), way = [0].concat(chain(current)), up = element('button', 'up', '↑ Up');
    up.type = 'button'; up.disabled = current === 0;
    up.addEventListener('click', function () { go(dirs[current].p); });
    nav.replaceChildren(up);
    const some = way.length > 9 ? way.slice(0, 2).concat([-1], way.slice(-6)) : way;
    some.forEach(function (at, i) {
      if (i) nav.append(' / ');
      if (at === -1) { nav.append('…'); return; }
      if (at === current) { const here = element('span', 'here', dirName(at)); here.setAttribute('aria-current', 'location'); nav.append(here); return; }
      const button = element('button', '', dirName(at));
      button.type = 'button';
      button.addEventListener('click', function () { go(at); });
      nav.append(button);
    });
  };
  const show = function () {
    tip.hidden = true;
    draw(); crumbs(); listing();
    canvas.setAttribute('aria-label', 'Map of ' + (current ? path(current) : data.workspace) + ', ' + files(total(slice(count, current))));
  };
  const go = function (at) {
    if (!(at >= 0 && at < dirs.length)) at = 0;
    if (at === current) return;
    // The browser's own "back" goes back.
    location.hash = at ? String(at) : '';
    if (at !== current) { current = at; show(); }
  };
  window.addEventListener('hashchange', function () {
    const at = Number(location.hash.slice(1)) || 0;
    if (at !== current && at >= 0 && at < dirs.length) { current = at; show(); }
  });

  const find = function (event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    for (let i = cells.length - 1; i >= 0; i--) {
      const cell = cells[i];
      if (x >= cell.x && y >= cell.y && x < cell.x + cell.w && y < cell.y + cell.h) return i;
    }
    return -1;
  };
  const enter = function (cell) {
    if (!cell) return;
    go(cell.item.dir >= 0 ? cell.inner : cell.item.of);
  };
  canvas.addEventListener('pointermove', function (event) {
    const at = find(event);
    showTip(cells[at], event.clientX, event.clientY);
  });
  canvas.addEventListener('pointerleave', function () { tip.hidden = true; });
  canvas.addEventListener('click', function (event) { enter(cells[find(event)]); });
  const choose = function (at) {
    const cell = cells[at];
    if (!cell) return;
    chosen = at;
    ring();
    const box = canvas.getBoundingClientRect();
    showTip(cell, box.left + cell.x + Math.min(cell.w, 60), box.top + cell.y + Math.min(cell.h, 24));
    const told = about(cell);
    byId('live').textContent = told.title + ', ' + told.text;
  };
  const move = function (dx, dy) {
    const from = cells[chosen];
    if (!from) { choose(0); return; }
    const fx = from.x + from.w / 2, fy = from.y + from.h / 2;
    let best = -1, least = Infinity;
    cells.forEach(function (cell, at) {
      if (at === chosen || cell.open || cell.w * cell.h < 30) return;
      const x = cell.x + cell.w / 2 - fx, y = cell.y + cell.h / 2 - fy, ahead = x * dx + y * dy;
      const cost = ahead + 3 * Math.abs(dx ? y : x);
      if (ahead > .5 && cost < least) { least = cost; best = at; }
    });
    if (best >= 0) choose(best);
  };
  canvas.addEventListener('keydown', function (event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (arrows[event.key]) move(arrows[event.key][0], arrows[event.key][1]);
    else if (event.key === 'Enter' || event.key === ' ') enter(cells[chosen]);
    else if (event.key === 'Backspace' && current) go(dirs[current].p);
    else if (event.key === 'Escape') tip.hidden = true;
    else return;
    event.preventDefault();
  });
  canvas.addEventListener('blur', function () { tip.hidden = true; if (chosen >= 0) { chosen = -1; ring(); } });

  document.querySelectorAll('.legend .key').forEach(function (key, state) {
    key.disabled = false;
    key.setAttribute('aria-pressed', 'false');
    key.addEventListener('click', function () {
      only = only === state ? -1 : state;
      document.querySelectorAll('.legend .key').forEach(function (other, at) { other.setAttribute('aria-pressed', String(at === only)); });
      ring();
      draw();
    });
  });
  const choice = document.querySelector('.choice');
  const press = function () {
    choice.querySelectorAll('button').forEach(function (button) { button.setAttribute('aria-pressed', String(button.dataset.area === area)); });
  };
  choice.querySelectorAll('button').forEach(function (button) {
    button.addEventListener('click', function () { area = button.dataset.area; press(); show(); });
  });

  ['map', 'crumbs', 'map-help'].forEach(function (id) { byId(id).hidden = false; });
  choice.hidden = false;
  current = Number(location.hash.slice(1)) || data.start || 0;
  if (!(current >= 0 && current < dirs.length)) current = 0;
  press(); patterns(); show();
  let width = byId('map').clientWidth;
  window.addEventListener('resize', function () {
    const now = byId('map').clientWidth;
    if (now !== width) { width = now; tip.hidden = true; draw(); }
  });
  ['(prefers-color-scheme: dark)', 'print'].forEach(function (query) {
    matchMedia(query).addEventListener('change', function () { patterns(); draw(); });
  });
  root.dataset.ready = 'true';
}());
