// Writes what the real SourceCred makes of cases.json: see README.md.
const fs = require("fs");
const path = require("path");
const tree = process.argv[2];
const {sourcecred} = require(path.join(tree, "sourcecred"));
const stringify = require(path.join(tree, "json-stable-stringify"));
const {Graph, NodeAddress, EdgeAddress} = sourcecred.core.graph;
const {weightedGraph, weights} = sourcecred.core;

const here = (name) => path.join(__dirname, name);
const cases = JSON.parse(fs.readFileSync(here("cases.json"), "utf8"));
for (const [name, {nodes, edges, nodeWeights, edgeWeights}] of Object.entries(cases)) {
  const graph = new Graph();
  for (const [address, description, timestampMs] of nodes) {
    graph.addNode({address: NodeAddress.fromParts(address), description, timestampMs});
  }
  for (const [address, src, dst, timestampMs] of edges) {
    graph.addEdge({
      address: EdgeAddress.fromParts(address),
      src: NodeAddress.fromParts(src),
      dst: NodeAddress.fromParts(dst),
      timestampMs,
    });
  }
  const all = weights.empty();
  for (const [prefix, weight] of nodeWeights) all.nodeWeights.set(NodeAddress.fromParts(prefix), weight);
  for (const [prefix, forwards, backwards] of edgeWeights) {
    all.edgeWeights.set(EdgeAddress.fromParts(prefix), {forwards, backwards});
  }
  const json = stringify(weightedGraph.toJSON({graph, weights: all}));
  weightedGraph.fromJSON(JSON.parse(json));
  fs.writeFileSync(here(`${name}.graph.json`), json);
}
