/* One stream of states for all tabs of a browser. Runs as a shared worker; where the browser has none (Android), it is
   part of the page. Knows no state: it passes on what comes.
   A tab sends the address that it listens to, or null when it leaves; it gets {kind: "state" | "open" | "lost"}. */
(() => {
  "use strict";
  const AGAIN = 2000;   // milliseconds
  const streams = new Map();   // by address

  function take(port, address) {
    for (const stream of streams.values()) stream.ports.delete(port);
    if (address !== null) join(port, address);
    for (const [known, stream] of streams)
      if (!stream.ports.size) { stream.source.close(); streams.delete(known); }
  }

  function join(port, address) {
    if (!streams.has(address)) {
      streams.set(address, { ports: new Set(), source: null, last: null });
      open(address);
    }
    const stream = streams.get(address);
    stream.ports.add(port);
    if (stream.last) port.postMessage(stream.last);
    const isOpen = stream.source.readyState === EventSource.OPEN;
    port.postMessage({ kind: isOpen ? "open" : "lost" });   // until it is open
  }

  function open(address) {
    const stream = streams.get(address);
    if (!stream) return;   // nobody listens any more
    const broadcast = (message) => { for (const port of stream.ports) port.postMessage(message); };
    const source = stream.source = new EventSource(address);
    source.onmessage = ({ data }) => broadcast(stream.last = { kind: "state", text: data });
    source.onopen = () => broadcast({ kind: "open" });
    source.onerror = () => {
      broadcast({ kind: "lost" });
      const hasGivenUp = source.readyState === EventSource.CLOSED;
      if (hasGivenUp && streams.get(address) === stream) setTimeout(() => open(address), AGAIN);
    };
  }

  if (typeof SharedWorkerGlobalScope === "undefined") {
    window.ichiStream = () => {
      const port = { postMessage: (address) => take(inner, address), onmessage: null };
      const inner = { postMessage: (data) => setTimeout(() => port.onmessage && port.onmessage({ data })) };
      return port;
    };
  } else {
    self.onconnect = ({ ports: [port] }) => { port.onmessage = ({ data }) => take(port, data); };
  }
})();
