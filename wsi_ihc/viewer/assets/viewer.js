// Slides side by side, behind a curtain or laid over each other, locked to one place.
//
// All places are level 0 pixels of the H&E (the frame), zero at its top left corner, as QuPath counts them. A view is
// the place in the middle of a pane and how many of those pixels one CSS pixel shows. Every pane is an OpenSeadragon
// viewer that holds all pictures; the mode says which of them each pane shows.
"use strict";
(() => {
    const scene = JSON.parse(document.getElementById("scene").textContent);
    const find = (id) => document.getElementById(id);
    const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
    const made = (tag, text, attributes = {}) => {
        const element = document.createElement(tag);
        element.textContent = text;
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        return element;
    };
    const say = (text) => { find("said").textContent = text; };

    const pictures = scene.pictures;
    const compared = pictures.map((_, number) => number).filter((number) => pictures[number].role !== "layer");
    const layers = pictures.map((_, number) => number).filter((number) => pictures[number].role === "layer");
    const state = {
        mode: compared.length > 1 ? "side" : "single",
        share: 0.5,                       // place of the curtain, or opacity of the overlay
        over: compared[1] ?? compared[0], // the picture compared with the first
        shown: new Set(scene.shapes.filter((shape) => shape.shown).map((shape) => shape.kind)),
        layers: new Set(),
        view: null,
    };

    // ---- Tiles -------------------------------------------------------------------------------------------------

    function tileSource(picture) {
        const source = new OpenSeadragon.TileSource({
            width: picture.width, height: picture.height, tileSize: picture.side,
            minLevel: 0, maxLevel: picture.levels - 1,
        });
        // OpenSeadragon counts levels from the coarsest, we from the finest.
        const place = (level, column, row) => `${picture.levels - 1 - level}/${row}_${column}`;
        if (picture.tiles.kind === "address") {
            const version = scene.live ? () => `?v=${picture.version}` : () => "";
            source.getTileUrl = (level, column, row) =>
                picture.tiles.template.replace("{place}", place(level, column, row)) + version();
        } else {
            rangeSource(source, picture, place);
        }
        return source;
    }

    // One file holds all tiles; a tile is a range of its bytes.
    function rangeSource(source, picture, place) {
        const { file, places } = picture.tiles;
        source.getTileUrl = (level, column, row) => `${file}#${place(level, column, row)}`;
        source.downloadTileStart = (context) => {
            const [level, row, column] = context.src.split("#")[1].split(/[/_]/).map(Number);
            const columns = Math.ceil(picture.width / (picture.side * 2 ** level));
            const [offset, length] = places[level][row * columns + column];
            const abort = new AbortController();
            context.userData.abort = abort;
            fetchRange(file, offset, length, abort.signal)
                .then((blob) => context.finish(blob, null, "rasterBlob"), (error) => context.fail(String(error), null));
        };
        source.downloadTileAbort = (context) => context.userData.abort?.abort();
    }

    async function fetchRange(file, offset, length, signal) {
        const answer = await fetch(file, { headers: { Range: `bytes=${offset}-${offset + length - 1}` }, signal });
        if (answer.status !== 206) throw new Error(`answered ${answer.status} where a part of the file was asked for`);
        return new Blob([await answer.arrayBuffer()], { type: "image/jpeg" });
    }

    // A server that does not know ranges sends the whole file, and the page would show wrong tiles.
    async function demandRanges() {
        for (const { tiles } of pictures.filter((picture) => picture.tiles.kind === "range")) {
            if (location.protocol === "file:") {
                throw new Error("This export reads parts of files, which needs a web server that answers range "
                    + "requests (206). To open it by a double click, export it with --single-folder.");
            }
            const [offset, length] = tiles.places.at(-1)[0];
            const status = await fetchRange(tiles.file, offset, length).then(() => "", (error) => error.message);
            if (status) {
                throw new Error(`The web server ${status}. It must answer range requests with status 206, or this page `
                    + "cannot show the slide. Use another server (nginx and Apache do), or export with --single-folder.");
            }
        }
    }

    // ---- Panes -------------------------------------------------------------------------------------------------

    const panes = [];
    let leader = null;                    // the pane that a hand moves; the others follow it
    let setting = false;                  // true while panes are set, whose events then mean nothing

    function makePane(number) {
        const element = made("div", "", { class: "pane", id: `pane-${number}` });
        find("panes").append(element);
        const viewer = new OpenSeadragon.Viewer({
            element, drawer: "canvas", showNavigationControl: false, keyboardNavEnabled: false,
            animationTime: 0.4, springStiffness: 9, visibilityRatio: 0.2, minZoomImageRatio: 0.5,
            maxZoomPixelRatio: 8, imageLoaderLimit: 6, maxImageCacheCount: 300, timeout: 60000,
            gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
            gestureSettingsTouch: { pinchRotate: false },
        });
        const drawing = made("canvas", "", { class: "drawing", "aria-hidden": "true" });
        viewer.canvas.append(drawing);
        const pane = { number, element, viewer, drawing, items: [] };
        viewer.addHandler("viewport-change", () => follow(pane));
        viewer.addHandler("resize", () => requestAnimationFrame(() => { show(state.view); refresh(); }));
        for (const kind of ["pointerdown", "wheel"]) element.addEventListener(kind, () => { leader = pane; }, true);
        viewer.addHandler("update-viewport", () => draw(pane));
        viewer.addHandler("animation-finish", keepPlace);
        viewer.addHandler("tile-load-failed", ({ message }) => say(`A part of the slide could not be read (${message}).`));
        element.addEventListener("pointermove", (event) => showPointer(pane, event));
        element.addEventListener("pointerleave", () => { find("place").textContent = ""; });
        panes.push(pane);
        return Promise.all(pictures.map((picture, index) => addPicture(pane, picture, index)));
    }

    function addPicture(pane, picture, index) {
        return new Promise((done, failed) => pane.viewer.addTiledImage({
            tileSource: tileSource(picture), index,
            x: picture.left / scene.width, y: picture.top / scene.width,
            width: picture.width * picture.scale / scene.width,
            opacity: 0,
            success: ({ item }) => { pane.items[index] = item; done(); },
            error: ({ message }) => failed(new Error(message)),
        }));
    }

    const shownPanes = () => panes.filter((pane) => !pane.element.hidden);

    // Level 0 pixels on one CSS pixel, and the place in the middle.
    function viewOf({ viewer }) {
        const centre = viewer.viewport.getCenter(true);
        const z = scene.width / (viewer.viewport.getZoom(true) * viewer.viewport.getContainerSize().x);
        return { x: centre.x * scene.width, y: centre.y * scene.width, z };
    }

    function setView({ viewer }, view) {
        const { viewport } = viewer;
        setting = true;
        viewport.zoomTo(scene.width / (view.z * viewport.getContainerSize().x), null, true);
        viewport.panTo(new OpenSeadragon.Point(view.x / scene.width, view.y / scene.width), true);
        setting = false;
    }

    // A pane that nobody touches has moved of itself, as panes do when they are resized: it goes back.
    function follow(pane) {
        if (setting || pane.element.hidden || !state.view) return;
        if (pane === leader) state.view = viewOf(pane);
        for (const other of shownPanes()) if (other !== leader) setView(other, state.view);
        placeCurtain();
        showZoom();
    }

    function show(view) {
        if (!view) return;
        leader = null;
        state.view = view;
        for (const pane of shownPanes()) setView(pane, view);
        placeCurtain();
        showZoom();
        keepPlace();
    }

    function wholeSlide() {
        const { x, y } = panes[0].viewer.viewport.getContainerSize();
        return { x: scene.width / 2, y: scene.height / 2, z: 1.04 * Math.max(scene.width / x, scene.height / y) };
    }

    const zoomBy = (factor) => show({ ...state.view, z: clamp(state.view.z / factor, 1 / 8, 2 * wholeSlide().z) });
    const moveBy = (right, down) => {
        const { x, y } = panes[0].viewer.viewport.getContainerSize(), { view } = state;
        show({ ...view, x: clamp(view.x + right * x * view.z, 0, scene.width), y: clamp(view.y + down * y * view.z, 0, scene.height) });
    };

    // ---- What each pane shows ----------------------------------------------------------------------------------

    // The pictures of a pane, bottom to top, with their opacity.
    function picturesOf(pane) {
        const layersOver = (number) => number !== compared[0] || compared.length === 1
            ? layers.filter((layer) => state.layers.has(layer)).map((layer) => [layer, 0.6]) : [];
        if (state.mode === "side") {
            const number = compared[pane.number];
            return [[number, 1], ...(pictures[number].role === "virtual" ? layersOver(number) : [])];
        }
        if (state.mode === "single") return [[compared[0], 1], ...layersOver(compared[0])];
        const opacity = state.mode === "overlay" ? state.share : 1;
        return [[compared[0], 1], [state.over, opacity], ...layersOver(state.over)];
    }

    function arrange() {
        const count = state.mode === "side" ? compared.length : 1;
        for (const pane of panes) pane.element.hidden = pane.number >= count;
        for (const button of document.querySelectorAll("[data-mode]")) {
            button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
            button.disabled = compared.length < 2;
        }
        for (const button of find("compared").children) {
            button.setAttribute("aria-pressed", Number(button.dataset.picture) === state.over);
        }
        find("compared").hidden = state.mode === "side";
        find("share-label").style.visibility = ["curtain", "overlay"].includes(state.mode) ? "visible" : "hidden";
        find("share-label").firstElementChild.textContent = state.mode === "overlay" ? "Opacity" : "Curtain";
        find("share").value = state.share;
        handle.hidden = state.mode !== "curtain";
        refresh();
    }

    function refresh() {
        for (const pane of shownPanes()) {
            const wanted = new Map(picturesOf(pane));
            pane.items.forEach((item, number) => item.setOpacity(wanted.get(number) ?? 0));
        }
        placeCurtain();
        for (const pane of shownPanes()) pane.viewer.forceRedraw();
        keepPlace();
    }

    // ---- Curtain -----------------------------------------------------------------------------------------------

    const handle = made("div", "", { class: "handle", id: "handle", role: "separator", "aria-label": "Curtain", "aria-orientation": "vertical" });

    // The picture above ends where the curtain hangs: its clip follows every movement of the slide below it.
    function placeCurtain() {
        const [pane] = panes;
        if (!pane || !state.view) return;
        const width = pane.viewer.viewport.getContainerSize().x;
        handle.style.left = `${state.share * width}px`;
        const line = state.view.x + (state.share - 0.5) * width * state.view.z;
        pane.items.forEach((item, number) => {
            const picture = pictures[number];
            const cut = clamp((line - picture.left) / picture.scale, 0, picture.width);
            const above = state.mode === "curtain" && number !== compared[0];
            // OpenSeadragon takes an empty clip for none; half a pixel of the slide is nothing to see.
            item.setClip(above ? new OpenSeadragon.Rect(cut, 0, Math.max(0.5, picture.width - cut), picture.height) : null);
        });
    }

    function setShare(share) {
        state.share = clamp(share, 0, 1);
        find("share").value = state.share;
        refresh();
    }

    handle.addEventListener("pointerdown", (event) => {
        handle.setPointerCapture(event.pointerId);
        event.preventDefault();
        event.stopPropagation();
    });
    handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const { left, width } = panes[0].element.getBoundingClientRect();
        setShare((event.clientX - left) / width);
    });

    // ---- Drawing over the pictures: shapes, names, scale bar -----------------------------------------------------

    const paths = new Map();              // kind -> Path2D in level 0 pixels
    function pathOf(shape) {
        if (!paths.has(shape)) {
            const path = new Path2D();
            for (const ring of shape.rings) {
                path.moveTo(ring[0], ring[1]);
                for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
                path.closePath();
            }
            paths.set(shape, path);
        }
        return paths.get(shape);
    }

    function draw(pane) {
        const { drawing, element } = pane;
        const density = window.devicePixelRatio || 1, width = element.clientWidth, height = element.clientHeight;
        if (drawing.width !== Math.round(width * density) || drawing.height !== Math.round(height * density)) {
            [drawing.width, drawing.height] = [Math.round(width * density), Math.round(height * density)];
        }
        const context = drawing.getContext("2d"), view = viewOf(pane), scale = 1 / view.z;
        context.setTransform(density, 0, 0, density, 0, 0);
        context.clearRect(0, 0, width, height);
        context.save();
        context.transform(scale, 0, 0, scale, width / 2 - view.x * scale, height / 2 - view.y * scale);
        for (const shape of scene.shapes.filter(({ kind }) => state.shown.has(kind))) {
            context.strokeStyle = shape.colour;
            context.lineWidth = 2 * view.z;
            context.setLineDash(shape.dash.map((length) => length * view.z));
            context.stroke(pathOf(shape));
        }
        context.restore();
        drawNames(context, pane, width);
        drawBar(context, view, height);
    }

    function label(context, text, x, y, ink = "#1d2024", ground = "rgba(255,255,255,0.88)") {
        context.font = "600 12.5px system-ui, sans-serif";
        const width = context.measureText(text).width;
        context.fillStyle = ground;
        context.fillRect(x, y, width + 12, 21);
        context.fillStyle = ink;
        context.fillText(text, x + 6, y + 15);
        return width + 12;
    }

    const nameOf = ({ name, synthetic }) => (synthetic ? `${name} · SYNTHETIC` : name);

    function drawNames(context, pane, width) {
        const names = picturesOf(pane).map(([number]) => pictures[number]);
        const put = (picture, x) => label(context, nameOf(picture), x, 8, ...(picture.synthetic ? ["#6b2e00", "rgba(255,233,207,0.94)"] : []));
        if (state.mode === "curtain") {
            put(names[0], 8);
            context.font = "600 12.5px system-ui, sans-serif";
            put(names[1], Math.max(8, width - 20 - context.measureText(nameOf(names[1])).width));
        } else {
            names.reduce((x, picture) => x + put(picture, x) + 6, 8);
        }
    }

    // The longest round length of at most a quarter of a 640 px pane.
    function barLength(umPerPx) {
        const longest = 160 * umPerPx, power = 10 ** Math.floor(Math.log10(longest));
        return [5, 2, 1].map((factor) => factor * power).find((length) => length <= longest);
    }

    function lengthText(um) {
        return um >= 1000 ? `${um / 1000} mm` : um >= 1 ? `${um} µm` : `${Number(um.toPrecision(1))} µm`;
    }

    function drawBar(context, view, height) {
        const unit = scene.mpp ? view.z * scene.mpp : view.z;
        const length = barLength(unit), px = length / unit;
        const text = scene.mpp ? lengthText(length) : `${length} px`;
        const magnified = magnification(view);
        context.fillStyle = "rgba(255,255,255,0.88)";
        context.fillRect(8, height - 42, Math.max(px + 20, 120), 34);
        context.fillStyle = "#1d2024";
        context.fillRect(18, height - 18, px, 4);
        context.font = "600 12.5px system-ui, sans-serif";
        context.fillText(magnified ? `${text}   ${magnified}` : text, 18, height - 24);
    }

    // 10 um/px is 1x, as 0.25 um/px is called 40x.
    function magnification(view) {
        if (!scene.mpp) return "";
        const value = 10 / (view.z * scene.mpp);
        return `${Number(value.toPrecision(value < 10 ? 2 : 3))}×`;
    }

    function showZoom() {
        find("zoom").textContent = scene.mpp
            ? `${magnification(state.view)}, ${Number((state.view.z * scene.mpp).toPrecision(3))} µm/px of the screen`
            : `1 : ${Number(state.view.z.toPrecision(3))}`;
    }

    function showPointer(pane, event) {
        const box = pane.element.getBoundingClientRect(), view = viewOf(pane);
        const x = view.x + (event.clientX - box.left - box.width / 2) * view.z;
        const y = view.y + (event.clientY - box.top - box.height / 2) * view.z;
        const um = scene.mpp ? `  ${(x * scene.mpp).toFixed(1)}, ${(y * scene.mpp).toFixed(1)} µm` : "";
        find("place").textContent = `x ${Math.floor(x)}, y ${Math.floor(y)} px${um}`;
    }

    // ---- The place in the link -----------------------------------------------------------------------------------

    let kept = "";
    function keepPlace() {
        if (!state.view) return;
        const { x, y, z } = state.view;
        const words = new URLSearchParams({ x: x.toFixed(1), y: y.toFixed(1), z: Number(z.toPrecision(6)), mode: state.mode });
        if (["curtain", "overlay"].includes(state.mode)) words.set("share", state.share.toFixed(2));
        if (state.over !== compared[1]) words.set("over", state.over);
        if (state.shown.size) words.set("show", [...state.shown].join("."));
        if (state.layers.size) words.set("layers", [...state.layers].join("."));
        kept = `#${words}`;
        if (kept !== location.hash) history.replaceState(null, "", kept);
    }

    function takePlace() {
        if (location.hash === kept || location.hash.length < 2) return null;
        const words = new URLSearchParams(location.hash.slice(1));
        const number = (name) => (words.has(name) && Number.isFinite(Number(words.get(name))) ? Number(words.get(name)) : null);
        if (compared.length > 1 && ["side", "curtain", "overlay"].includes(words.get("mode"))) state.mode = words.get("mode");
        if (compared.includes(number("over"))) state.over = number("over");
        state.share = clamp(number("share") ?? state.share, 0, 1);
        if (words.has("show")) state.shown = new Set(words.get("show").split("."));
        state.layers = new Set((words.get("layers") ?? "").split(".").filter(Boolean).map(Number).filter((layer) => layers.includes(layer)));
        const [x, y, z] = ["x", "y", "z"].map(number);
        return x !== null && y !== null && z > 0 ? { x, y, z } : null;
    }

    // ---- Saving the view -------------------------------------------------------------------------------------------

    // The panes as they stand, and below them what nobody may cut off: name, place, mark.
    function composed() {
        const shown = shownPanes(), density = window.devicePixelRatio || 1, gap = 3 * density, strip = 46 * density;
        const width = shown.reduce((sum, pane) => sum + pane.drawing.width, gap * (shown.length - 1));
        const canvas = made("canvas", "", { width: Math.round(width), height: Math.round(shown[0].drawing.height + strip) });
        const context = canvas.getContext("2d");
        context.fillStyle = "#fff";
        context.fillRect(0, 0, canvas.width, canvas.height);
        let left = 0;
        for (const pane of shown) {
            context.drawImage(pane.viewer.drawer.canvas, left, 0, pane.drawing.width, pane.drawing.height);
            context.drawImage(pane.drawing, left, 0);
            left += pane.drawing.width + gap;
        }
        context.setTransform(density, 0, 0, density, 0, canvas.height - strip);
        if (scene.mark) {
            context.fillStyle = "#ffe9cf";
            context.fillRect(0, 0, canvas.width, 23);
            context.fillStyle = "#6b2e00";
            context.font = "600 13px system-ui, sans-serif";
            context.fillText(scene.mark, 8, 16);
        }
        context.fillStyle = "#22262e";
        context.font = "12.5px system-ui, sans-serif";
        const { x, y } = state.view;
        context.fillText(`${scene.title}: centre x ${Math.round(x)}, y ${Math.round(y)} px, ${find("zoom").textContent}`, 8, 39);
        return canvas;
    }

    function saveView() {
        try {
            composed().toBlob((blob) => {
                const address = URL.createObjectURL(blob);
                const name = scene.title.replace(/[^A-Za-z0-9._-]+/g, "_").replace(/^\.+/, "") || "slide";
                made("a", "", { href: address, download: `${name}_${Math.round(state.view.x)}_${Math.round(state.view.y)}_synthetic.png` }).click();
                setTimeout(() => URL.revokeObjectURL(address), 10000);
            });
        } catch {
            say("The browser does not let a page that was opened from a disk save its pictures. Take a screenshot: scale bar and mark are in the view.");
        }
    }

    // ---- Legend ----------------------------------------------------------------------------------------------------

    function sample(shape) {
        const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        svg.setAttribute("width", 26);
        svg.setAttribute("height", 10);
        const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        for (const [name, value] of Object.entries({ x1: 0, x2: 26, y1: 5, y2: 5, stroke: shape.colour, "stroke-width": 3, "stroke-dasharray": shape.dash.join(" ") })) {
            line.setAttribute(name, value);
        }
        svg.append(line);
        return svg;
    }

    function toggle(name, value, set, picture, count = "") {
        const box = made("input", "", { type: "checkbox", "data-toggle": value });
        box.checked = set.has(value);
        box.addEventListener("change", () => {
            if (box.checked) set.add(value); else set.delete(value);
            refresh();
        });
        const words = made("label", "");
        words.append(box, ...(picture ? [picture] : []), made("span", name), made("span", count, { class: "count" }));
        return words;
    }

    function showLegend() {
        const shapes = scene.shapes.map((shape) => toggle(shape.name, shape.kind, state.shown, sample(shape), shape.rings.length));
        const planes = layers.map((layer) => toggle(pictures[layer].name, layer, state.layers));
        const none = made("p", scene.busy ? "The tissue is being looked for." : "This slide has no layers.");
        find("toggles").replaceChildren(...(shapes.length + planes.length ? [...shapes, ...planes] : [none]));
        find("pictures").replaceChildren(...pictures.flatMap((picture) => [made("dt", nameOf(picture)), made("dd", picture.note)]));
        find("notices").replaceChildren(...scene.notices.map((notice) => made("li", notice)));
        find("notices-section").hidden = !scene.notices.length;
        const facts = Object.entries(scene.facts);
        find("facts").replaceChildren(...facts.flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
        find("facts-section").hidden = !facts.length;
    }

    // ---- What changes while the page is open -----------------------------------------------------------------------

    const UPDATE_MS = 1500;
    async function update() {
        const answer = await fetch("scene.json").catch(() => null);
        if (!answer?.ok) {
            say("The viewer has ended; start wsi-ihc view again.");
            return;
        }
        const fresh = await answer.json();
        if (fresh.running !== scene.running || fresh.pictures.length !== pictures.length || fresh.pictures.some((picture, i) => picture.width !== pictures[i].width)) {
            location.reload();
            return;
        }
        paths.clear();
        [scene.shapes, scene.notices, scene.busy] = [fresh.shapes, fresh.notices, fresh.busy];
        fresh.pictures.forEach((picture, number) => {
            if (picture.version === pictures[number].version) return;
            pictures[number].version = picture.version;
            for (const pane of panes) pane.items[number].reset();
        });
        say(scene.busy);
        showLegend();
        refresh();
        if (scene.busy) setTimeout(update, UPDATE_MS);
    }

    // ---- Controls --------------------------------------------------------------------------------------------------

    function setMode(mode) {
        if (compared.length < 2) return;
        state.mode = mode;
        arrange();
        requestAnimationFrame(() => { show(state.view); refresh(); });
    }

    function toggleShape(kind) {
        if (!scene.shapes.some((shape) => shape.kind === kind)) return;
        if (!state.shown.delete(kind)) state.shown.add(kind);
        showLegend();
        refresh();
    }

    function toggleLegend() {
        find("legend").hidden = !find("legend").hidden;
        find("legend-button").setAttribute("aria-pressed", !find("legend").hidden);
    }

    const KEYS = {
        1: () => setMode("side"), 2: () => setMode("curtain"), 3: () => setMode("overlay"),
        0: () => show(wholeSlide()), 9: () => show({ ...state.view, z: 1 }),
        "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5),
        "[": () => setShare(state.share - 0.05), "]": () => setShare(state.share + 0.05),
        t: () => toggleShape("tissue"), b: () => toggleShape("blocks"), s: saveView, l: toggleLegend,
        ArrowLeft: () => moveBy(-0.15, 0), ArrowRight: () => moveBy(0.15, 0),
        ArrowUp: () => moveBy(0, -0.15), ArrowDown: () => moveBy(0, 0.15),
    };

    function listen() {
        document.addEventListener("keydown", (event) => {
            const typing = event.target.matches?.("input[type=range]") && event.key.startsWith("Arrow");
            const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
            if (!action || typing || event.ctrlKey || event.altKey || event.metaKey) return;
            event.preventDefault();
            action();
        });
        for (const button of document.querySelectorAll("[data-mode]")) {
            button.addEventListener("click", () => setMode(button.dataset.mode));
        }
        find("share").addEventListener("input", (event) => setShare(Number(event.target.value)));
        find("in").addEventListener("click", () => zoomBy(1.5));
        find("out").addEventListener("click", () => zoomBy(1 / 1.5));
        find("home").addEventListener("click", () => show(wholeSlide()));
        find("native").addEventListener("click", () => show({ ...state.view, z: 1 }));
        find("save").addEventListener("click", saveView);
        find("legend-button").addEventListener("click", toggleLegend);
        window.addEventListener("hashchange", () => {
            const view = takePlace();
            arrange();
            requestAnimationFrame(() => { show(view ?? state.view); refresh(); showLegend(); });
        });
        for (const number of compared.length > 2 ? compared.slice(1) : []) {
            const button = made("button", pictures[number].name, { "data-picture": number });
            button.addEventListener("click", () => { state.over = number; arrange(); });
            find("compared").append(button);
        }
    }

    async function start() {
        listen();
        const view = takePlace();
        find("legend").hidden = window.innerWidth < 720;
        find("legend-button").setAttribute("aria-pressed", !find("legend").hidden);
        showLegend();
        await demandRanges();
        const ready = compared.map((_, number) => makePane(number));
        panes[0].element.append(handle);
        await Promise.all(ready);
        arrange();
        await new Promise(requestAnimationFrame);
        show(view ?? wholeSlide());
        refresh();
        document.body.dataset.ready = "yes";
        if (scene.live && scene.busy) setTimeout(update, 300);
        say(scene.busy);
    }

    // For tests, and for those who look under the hood.
    window.wsiIhc = { scene, state, panes, viewOf, show, composed };
    start().catch((error) => {
        find("panes").replaceChildren(made("p", error.message, { class: "mark", role: "alert", id: "refusal" }));
    });
})();
