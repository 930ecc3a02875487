"""What a Grafana dashboard asks of Prometheus, as recording rules on standard output, so that promtool
can check it: dashboard_rules.py DASHBOARD.json"""

import json
import sys

# What Grafana puts in.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        dashboard = json.load(file)
    rules = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            if "$" in expression:
                sys.exit(f"{panel['title']}: an unknown variable in {expression}")
            rules.append({"record": f"dashboard:panel{panel['id']}:{target['refId'].lower()}", "expr": expression})
    if not rules:
        sys.exit("no panel asks for anything")
    # JSON is YAML.
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
