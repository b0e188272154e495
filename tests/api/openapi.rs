//! `/openapi.json`: what is served is described, what is described is served, and nothing in it leads nowhere.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::client::{get, post, receive, send};
use super::server::{Server, Setup};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document(server: &Server) -> Value {
    let response = get(server.address, "/openapi.json");
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    response.json()
}

/// Path and description of every path.
fn paths(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().map(|(path, item)| (path.clone(), item.clone())).collect()
}

#[test]
fn what_is_described_is_served_with_its_statuses_and_nothing_else_is() {
    let server = Setup::default().echo();
    let document = document(&server);
    assert!(paths(&document).len() > 10);
    for (path, item) in paths(&document) {
        let real = path.replace("{name}", "none").replace("{id}", "none");
        assert!(!real.contains('{'), "{path} has a parameter that this test does not fill");
        for method in METHODS {
            let response = receive(send(server.address, &method.to_uppercase(), &real, &[], b"{}"));
            let Some(operation) = item.get(method) else {
                assert_eq!(response.status, 405, "{method} {path}");
                let allowed: BTreeSet<String> =
                    response.header("allow").unwrap().split(", ").map(str::to_lowercase).collect();
                let head = item.get("get").map(|_| "head");
                let described = METHODS.into_iter().filter(|method| item.get(method).is_some());
                assert_eq!(allowed, described.chain(head).map(str::to_owned).collect(), "{path}");
                continue;
            };
            let status = response.status.to_string();
            assert!(operation["responses"].get(&status).is_some(), "{method} {path} answers {status}");
            assert!(!response.text().contains("unknown_url"), "{method} {path} is not served");
        }
    }
}

/// Every `#[get("/path")]` and its like under `dir`.
fn handlers(dir: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            handlers(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for other_way in ["web::resource", "web::scope", "web::get()", "web::post()", ".route(", "#[route("] {
            assert!(!text.contains(other_way), "{} adds a route without describing it", path.display());
        }
        for method in METHODS {
            let attribute = format!("\n#[{method}(\"");
            let paths = text.split(&attribute).skip(1).map(|rest| rest.split('"').next().unwrap());
            // `{name:.+}` is `{name}` to clients.
            let plain = |path: &str| path.replace(":.+}", "}");
            found.extend(paths.map(|path| (plain(path), method.to_owned())));
        }
    }
}

#[test]
fn every_handler_is_described() {
    let server = Setup::default().echo();
    let document = document(&server);
    let described: BTreeSet<(String, String)> = paths(&document)
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
        })
        .collect();
    let mut written = BTreeSet::new();
    handlers(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"), &mut written);
    assert_eq!(described, written);
}

fn each(value: &Value, visit: &mut impl FnMut(&Value)) {
    visit(value);
    match value {
        Value::Array(list) => list.iter().for_each(|value| each(value, visit)),
        Value::Object(object) => object.values().for_each(|value| each(value, visit)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
    let server = Setup::default().echo();
    let document = document(&server);
    let mut references = 0;
    each(&document, &mut |value| {
        let Some(target) = value.get("$ref").and_then(Value::as_str) else { return };
        let schema = document.pointer(target.strip_prefix('#').unwrap());
        assert!(schema.is_some_and(Value::is_object), "{target} leads nowhere");
        references += 1;
    });
    assert!(references > 50, "{references}");
    let mut names = BTreeSet::new();
    for (_, item) in paths(&document) {
        for operation in item.as_object().unwrap().values() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
            assert!(!operation["summary"].as_str().unwrap().is_empty());
        }
    }
}

#[test]
fn the_fields_that_are_read_are_described_with_their_types() {
    let server = Setup::default().echo();
    let schemas = document(&server)["components"]["schemas"].clone();
    assert_eq!(schemas["Options"]["properties"]["max_tokens"]["type"], json!(["integer", "null"]));
    assert_eq!(schemas["ChatFields"]["required"], json!(["messages"]));
    let roles = schemas["Role"]["enum"].as_array().unwrap();
    for role in roles {
        let body = json!({"messages": [{"role": role, "content": "x"}, {"role": "user", "content": "<script>a<go>"}]});
        let status = post(server.address, "/v1/chat/completions", &body).status;
        assert_eq!(status, 200, "{role}");
    }
    // An error is what the document says an error is.
    let error = post(server.address, "/v1/chat/completions", &json!({})).json();
    let described = schemas["ErrorObject"]["properties"].as_object().unwrap();
    assert!(described.keys().eq(error["error"].as_object().unwrap().keys().collect::<BTreeSet<_>>()));
}

#[test]
fn what_can_be_got_can_be_asked_about() {
    let server = Setup::default().echo();
    for path in ["/v1/models", "/v1/models/maker/model", "/health", "/openapi.json"] {
        let response = receive(send(server.address, "HEAD", path, &[], b""));
        assert_eq!((response.status, response.body.len()), (200, 0), "{path}");
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
}
