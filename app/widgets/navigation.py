"""The script of every page: links within the session, shortcuts, copied links, figures as SVG; and its buttons."""

from __future__ import annotations

from urllib.parse import unquote, urlencode

import streamlit as st

from app.components.html import panels
from app.session import bundles, permalinks
from lfp.bundle.manifest import Manifest
from lfp.util.sanitize import escaped

KEYS = {
    "/": "search on this page", "Esc": "clear the search, or leave a field", "j": "next item or page",
    "n": "next without a verdict, or the next", "o": "open a feature of this list by its name",
    "1 to 4": "verdict: right, partly, wrong, unsure; first your name",
    "k": "previous item or page", "y": "copy a link to this view", "?": "this help",
}  # fmt: skip
"""Keyboard shortcuts of every page."""
COOKIE = "lfp_reviewer"
"""The cookie that keeps the reviewer's name in this browser."""


def install() -> None:
    """Install the script of every page and its buttons. The script is constant; what it reads is in `show_state`."""
    st.html(f"<script>{SCRIPT}</script>", unsafe_allow_javascript=True)
    row = st.sidebar.container(horizontal=True, gap="small")
    row.button("Copy link", icon=":material/link:", key="copy_link", help="Address of this view, with the bundle’s id")
    with row.popover("Keys", icon=":material/keyboard:", help="Keyboard shortcuts"):
        st.html(panels.facts(KEYS))


def remember_reviewer() -> None:
    """Take the reviewer's name from the browser's cookie in a session that has none yet."""
    if "reviewer" not in st.session_state and not bundles.is_public():
        name = st.context.cookies.get(COOKIE, "")
        st.session_state.reviewer = unquote(name)[:80] if isinstance(name, str) else ""  # AppTest has no browser


def show_state(manifest: Manifest) -> None:
    """Write which bundle is open where the script finds it, unseen, for copied links."""
    st.sidebar.html(
        f'<span class="lfp-state" data-bundle="{escaped(bundles.bundle_name())}" '
        f'data-bundle-id="{escaped(manifest.bundle_id)}"></span>'
    )


def show_other_bundle(manifest: Manifest, page: str) -> None:
    """Say that the address was copied from another bundle than the open one, and offer that bundle if it is here."""
    copied = st.query_params.get(permalinks.BUNDLE_ID, "")
    if copied in ("", manifest.bundle_id):
        return
    says = (
        f"It was copied from bundle {copied}, and bundle {manifest.bundle_id} is open. Numbers of features and texts "
        "may mean others here"
    )
    st.html(panels.notice("This link is to another bundle", says, is_page=False))
    params = {key: st.query_params.get_all(key) for key in st.query_params if key != permalinks.BUNDLE_ID}
    for name in bundles.find_bundles(copied):
        query = urlencode(params | {"bundle": [name]}, doseq=True)
        st.html(panels.anchor(f"{page or '.'}?{query}", f"Open it in {name}"))


SCRIPT = """
(() => {
  if (window.lfpListeners) for (const [target, kind, act] of window.lfpListeners)
    target.removeEventListener(kind, act, true);
  window.lfpListeners = [];
  const listen = (target, kind, act) => {
    target.addEventListener(kind, act, true);
    window.lfpListeners.push([target, kind, act]);
  };
  const tops = window.lfpTops ||= new Map();
  const main = () => document.querySelector('[data-testid="stMain"]');
  const isTyping = at => at && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName));
  const isRunning = () => document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState !== 'notRunning';

  // Scroll positions by address: a new view starts at its top, and Back finds the place again.
  let goal = null, timer = 0;
  const scrollTo = (top, starts = Date.now()) => {
    goal = top;
    clearTimeout(timer);
    const box = main(), passed = Date.now() - starts;
    if (box) box.scrollTop = top;
    const isThere = box && !isRunning() && Math.abs(box.scrollTop - top) < 2;
    if (passed > 8000 || (isThere && passed > 600)) goal = null;
    else timer = setTimeout(() => goal !== null && scrollTo(top, starts), 60);
  };
  listen(document, 'scroll', event => {
    if (event.target === main() && goal === null) tops.set(location.href, event.target.scrollTop);
  });
  for (const kind of ['wheel', 'touchstart', 'keydown']) listen(document, kind, () => { goal = null; });

  // What was typed is sent as its field loses the focus; the page must not go before the server has it.
  let left = 0;
  listen(document, 'focusout', event => { if (isTyping(event.target)) left = Date.now(); });
  const whenSent = act => {
    const wait = () => isRunning() && Date.now() < left + 4000 ? setTimeout(wait, 50) : act();
    if (Date.now() - left > 250) act(); else setTimeout(wait, 150);
  };

  // Streamlit reads the address on popstate: one entry in the history, no reload, the session stays.
  const restore = () => window.dispatchEvent(new PopStateEvent('popstate', {state: {}}));
  const follow = to => whenSent(() => {
    if (to.href !== location.href) history.pushState({}, '', to.href);
    scrollTo(0);
    restore();
  });
  listen(window, 'popstate', event => {
    if (!event.isTrusted) return;
    if (isTyping(document.activeElement)) document.activeElement.blur();
    if (Date.now() - left <= 250) { event.stopImmediatePropagation(); whenSent(restore); }
    scrollTo(tops.get(location.href) || 0);
  });
  const inPages = '.stHtml a, a[data-testid="stPageLink-NavLink"], a[data-testid="stSidebarNavLink"]';
  listen(document, 'click', event => {
    const at = event.target instanceof Element ? event.target : event.target.parentElement;
    if (at?.closest('.st-key-copy_link button')) { event.stopPropagation(); copy(); return; }
    if (at?.closest('.st-key-card_png button')) { event.stopPropagation(); saveCard(); return; }
    const link = at?.closest(inPages);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const to = new URL(link.href, location.href), bundle = new URLSearchParams(location.search).get('bundle');
    if (to.origin !== location.origin || link.target === '_blank') return;
    if (bundle && !to.searchParams.has('bundle')) to.searchParams.set('bundle', bundle);
    if (/[?&]embed=true/.test(location.search)) to.searchParams.set('embed', 'true');
    event.preventDefault();
    event.stopPropagation();
    if (link.dataset.testid === 'stSidebarNavLink' && window.innerWidth < 768)
      document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
    follow(to);
  });

  // A link to what is on screen, with the bundle that it is of.
  const state = () => document.querySelector('.lfp-state')?.dataset || {};
  const copy = async () => {
    const link = new URL(location.href), {bundle, bundleId} = state();
    if (bundle) link.searchParams.set('bundle', bundle);
    if (bundleId) link.searchParams.set('bundle_id', bundleId);
    try { await navigator.clipboard.writeText(link.href); }
    catch {
      const box = document.body.appendChild(document.createElement('textarea'));
      box.value = link.href;
      box.select();
      document.execCommand('copy');
      box.remove();
    }
    const note = document.body.appendChild(document.createElement('div'));
    note.className = 'lfp-copied';
    note.setAttribute('role', 'status');
    note.textContent = 'Link copied';
    setTimeout(() => note.remove(), 2000);
  };

  // The name that was typed last in this browser is a new tab's; one that is loaded again keeps its own.
  const rememberReviewer = () => {
    const name = sessionStorage.getItem('lfp_reviewer');
    if (name !== null)
      document.cookie = `lfp_reviewer=${encodeURIComponent(name)}; max-age=31536000; SameSite=Strict; path=/`;
  };
  listen(document, 'change', event => {
    if (!event.target.closest?.('.st-key-reviewer')) return;
    sessionStorage.setItem('lfp_reviewer', event.target.value.trim());
    rememberReviewer();
  });
  listen(window, 'pagehide', rememberReviewer);

  // A file of what the browser has made.
  const save = (blob, name) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // A card, which is an SVG, as PNG of twice its size.
  const saveCard = () => {
    const card = document.querySelector('.st-key-card_image img'), sheet = document.createElement('canvas');
    [sheet.width, sheet.height] = [2 * card.naturalWidth, 2 * card.naturalHeight];
    sheet.getContext('2d').drawImage(card, 0, 0, sheet.width, sheet.height);
    sheet.toBlob(blob => save(blob, 'feature.png'), 'image/png');
  };

  // A figure as SVG, beside plotly's own button for PNG; one drawn by WebGL has no SVG.
  const saveSvg = plot => {
    const box = plot.querySelector('.svg-container'), size = [box.clientWidth, box.clientHeight];
    const whole = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    whole.setAttribute('width', size[0]);
    whole.setAttribute('height', size[1]);
    whole.setAttribute('viewBox', `0 0 ${size.join(' ')}`);
    const back = whole.appendChild(document.createElementNS(whole.namespaceURI, 'rect'));
    back.setAttribute('width', '100%');
    back.setAttribute('height', '100%');
    back.setAttribute('fill', getComputedStyle(document.querySelector('.stApp')).backgroundColor);
    for (const layer of plot.querySelectorAll('.main-svg'))
      for (const part of layer.children)
        if (!part.classList.contains('hoverlayer')) whole.append(part.cloneNode(true));
    save(new Blob([new XMLSerializer().serializeToString(whole)], {type: 'image/svg+xml'}), 'figure.svg');
  };
  listen(document, 'pointerover', event => {
    const plot = event.target.closest?.('.js-plotly-plot'), group = plot?.querySelector('.modebar-group');
    if (!group || group.querySelector('.lfp-svg') || plot.querySelector('canvas')) return;
    const button = group.appendChild(document.createElement('button'));
    button.className = 'modebar-btn lfp-svg';
    button.type = 'button';
    button.textContent = 'SVG';
    button.setAttribute('aria-label', 'Download plot as SVG');
    button.onclick = () => saveSvg(plot);
  });

  // A table selects a cell as Tab or an arrow comes to it: what that cell opens waits for Enter.
  listen(document, 'pointerdown', () => { window.lfpByKeys = false; });
  listen(document, 'keydown', event => {
    if (event.key === 'Tab' || event.key.startsWith('Arrow')) window.lfpByKeys = true;
    if (event.key !== 'Enter') return;
    window.lfpByKeys = false;
    if (!document.activeElement.closest?.('[data-testid="stDataFrame"] canvas')) return;
    const open = (starts = Date.now()) => isRunning() && Date.now() < starts + 4000
      ? setTimeout(() => open(starts), 50) : document.querySelector('.lfp-following a')?.click();
    setTimeout(open, 250);
  });

  const find = name => [...document.querySelectorAll('button, a[data-key]')]
    .find(element => !element.disabled && [element.dataset.key, ...element.innerText.split('\\n')].includes(name))
    || document.querySelector(`[data-testid="stMain"] button[aria-label="${name} page"]:not([disabled])`);
  listen(document, 'keydown', event => {
    const at = document.activeElement;
    if (event.key === 'Escape' && isTyping(at)) {
      if (at.type === 'search' && at.value) {  // Streamlit sends a value as its field loses the focus
        event.preventDefault();
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(at, '');
        at.dispatchEvent(new Event('input', {bubbles: true}));
        setTimeout(() => at.blur(), 0);
      } else at.blur();
      return;
    }
    if (isTyping(at) || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector('[data-testid="stMain"] input[type="search"]');
    const next = find('Next'), unreviewed = find('Next unreviewed') || next;
    const target = {j: next, n: unreviewed, k: find('Previous'), '?': find('Keys')}[event.key];
    const name = document.querySelector('[data-testid="stMain"] input[aria-label="Your name"]');
    const opener = document.querySelector('[data-testid="stMain"] [class*="st-key-open_"] input');
    if (event.key === '/' && search) { search.focus(); search.select(); event.preventDefault(); }
    else if (event.key === 'o' && opener) { opener.focus(); event.preventDefault(); }
    else if (event.key === 'y') copy();
    else if (/^[1-4]$/.test(event.key) && name && !name.value) { name.focus(); event.preventDefault(); }
    else if (target) { target.click(); event.preventDefault(); }
  });
})();
"""
