// Reads resources of the Prometheus operator as JSON from standard input and says what its schemas find wrong with them.
// Its exit status is 1 if they find anything, or if there is nothing to check.
const kinds = {};
for (const kind of ["ServiceMonitor", "PrometheusRule"]) {
  kinds[kind] = require(`@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/${kind}`)[kind];
}
const resources = JSON.parse(require("fs").readFileSync(0, "utf8"));
let checked = 0;
for (const resource of resources) {
  try {
    new kinds[resource.kind](resource).validate();
    checked += 1;
  } catch (error) {
    console.error(`${resource.kind} ${resource.metadata.name}: ${error.message}`);
    process.exit(1);
  }
}
process.exit(checked > 0 ? 0 : 1);
