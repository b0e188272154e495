#!/bin/sh
# Fuzzes a running server by its own description: no status 5xx, no status, content type or reply that /openapi.json does not
# describe.
#   pip install schemathesis==4.32.5
#   prefixd serve --port 8000 --max-tokens 16
#   tests/clients/schemathesis.sh http://127.0.0.1:8000 [EXAMPLES]
set -eu
url=${1:?the URL of a running server}
examples=${2:-25}
# Answers as long as a random number asks for would be the model's time, not the API's; such a request is given up
# after the timeout.
exec schemathesis run "$url/openapi.json" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
    --phases examples,coverage,fuzzing --max-examples "$examples" --generation-deterministic \
    --request-timeout 30 --suppress-health-check all
