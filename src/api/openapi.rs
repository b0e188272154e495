//! `GET /openapi.json`: what is served, from the types that requests are read into and replies are written from.
//!
//! 1. What is served is described: a handler carries its path, its method and its types, and routes are added with it.
//! 2. What is described is served, with the statuses that are described.
//!
//! Here too: the answer to paths and methods that are not served, because the document knows those that are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use actix_web::dev::ResourceDef;
use actix_web::http::Method;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, ResponseError, get, web};
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, Components, Schema};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::anthropic::{AnthropicError, AnthropicErrorBody};
use super::elsewhere;
use super::error::{ApiError, ErrorBody};

/// The document and what it says of paths, ready to be sent and to be looked up.
#[derive(Debug)]
pub struct Document {
    json: Bytes,
    /// Every path with the methods it takes.
    paths: Vec<(ResourceDef, Vec<Method>)>,
}

impl Document {
    /// Completes what the routes told.
    pub fn new(mut api: OpenApi) -> Result<Self, serde_json::Error> {
        api.info = InfoBuilder::new()
            .title("prefixd")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some("An LLM server that never computes the same prompt prefix twice."))
            .build();
        let components = api.components.get_or_insert_with(Components::new);
        for (name, scheme) in security() {
            components.add_security_scheme(name, scheme);
        }
        let mut errors = Vec::new();
        for (add, name, schema) in [
            (ErrorBody::schemas as fn(&mut _), ErrorBody::name(), ErrorBody::schema()),
            (AnthropicErrorBody::schemas, AnthropicErrorBody::name(), AnthropicErrorBody::schema()),
        ] {
            add(&mut errors);
            errors.push((name.into(), schema));
        }
        components.schemas.extend(errors);
        let paths = api.paths.paths.iter();
        let paths = paths.map(|(path, item)| (ResourceDef::new(path.as_str()), methods(item))).collect();
        Ok(Self { json: serde_json::to_vec(&api)?.into(), paths })
    }

    /// The methods that `path` takes; none: there is no such path.
    fn methods(&self, path: &str) -> Option<&[Method]> {
        self.paths.iter().find(|(known, _)| known.is_match(path)).map(|(_, methods)| methods.as_slice())
    }
}

fn security() -> [(&'static str, SecurityScheme); 3] {
    let header = |name: &str| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    [("bearer", bearer), ("x-api-key", header("x-api-key")), ("x-admin-key", header("x-admin-key"))]
}

fn methods(item: &PathItem) -> Vec<Method> {
    let known = [
        // Whatever is got can be asked about.
        (Method::GET, &item.get),
        (Method::HEAD, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    known.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// This document.
#[utoipa::path(tag = "server", responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)))]
#[get("/openapi.json")]
pub async fn openapi(document: web::Data<Document>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(document.json.clone())
}

/// Whether clients of `path` expect Anthropic's words.
pub fn speaks_anthropic(path: &str) -> bool {
    path.starts_with("/v1/messages")
}

/// Answers what is not served: the path is unknown, or takes other methods.
pub async fn not_served(request: HttpRequest, document: web::Data<Document>) -> HttpResponse {
    let (method, path) = (request.method().to_string(), request.path().to_owned());
    let anthropic = speaks_anthropic(&path);
    let error = match document.methods(&path) {
        None => {
            let instead = elsewhere::instead(&path, |path| document.methods(path).is_some());
            ApiError::UnknownPath { method, path, instead }
        }
        Some(methods) => {
            let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
            ApiError::Method { method, path, allowed: names.join(", ") }
        }
    };
    if anthropic { AnthropicError::from(error).error_response() } else { error.error_response() }
}

/// A request body that is read in parts, each with a type of its own. The last part gives it its name.
pub struct Body<T>(PhantomData<T>);

/// Types that are parts of one body.
pub trait Parts {
    /// Their schemas by name, and those that these refer to.
    fn parts(nested: &mut Vec<(String, RefOr<Schema>)>) -> Vec<Cow<'static, str>>;
}

macro_rules! parts {
    ($($part:ident),+) => {
        impl<$($part: ToSchema),+> Parts for ($($part,)+) {
            fn parts(nested: &mut Vec<(String, RefOr<Schema>)>) -> Vec<Cow<'static, str>> {
                $(
                    $part::schemas(nested);
                    nested.push(($part::name().into(), $part::schema()));
                )+
                vec![$($part::name()),+]
            }
        }
    };
}
parts!(A, B);
parts!(A, B, C);

impl<T: Parts> PartialSchema for Body<T> {
    fn schema() -> RefOr<Schema> {
        let names = T::parts(&mut Vec::new());
        let all = names
            .iter()
            .fold(AllOfBuilder::new(), |all, name| all.item(Ref::from_schema_name(name.as_ref())));
        Schema::AllOf(all.build()).into()
    }
}

impl<T: Parts> ToSchema for Body<T> {
    fn name() -> Cow<'static, str> {
        let names = T::parts(&mut Vec::new());
        let last = names.last().map_or("", |name| name.as_ref());
        format!("{}Request", last.trim_end_matches("Fields")).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::parts(schemas);
    }
}

/// A body that is one of several.
pub struct AnyOf<T>(PhantomData<T>);

impl<T: Parts> PartialSchema for AnyOf<T> {
    fn schema() -> RefOr<Schema> {
        let names = T::parts(&mut Vec::new());
        let any = names
            .iter()
            .fold(AnyOfBuilder::new(), |any, name| any.item(Ref::from_schema_name(name.as_ref())));
        Schema::AnyOf(any.build()).into()
    }
}

impl<T: Parts> ToSchema for AnyOf<T> {
    fn name() -> Cow<'static, str> {
        T::parts(&mut Vec::new()).join("Or").into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::parts(schemas);
    }
}

/// How requests with a body are refused, in OpenAI's words.
pub struct Refusals;
/// The same in Anthropic's words.
pub struct AnthropicRefusals;
/// How requests are refused that need a key and nothing else.
pub struct KeyRefusal;
/// How requests are refused that need the admin key.
pub struct AdminRefusals;
/// How requests about an agent are refused that have no body.
pub struct AgentRefusals;

/// Every status of [`ApiError`] that a request with a body may meet on a path that exists.
const REFUSALS: [(u16, &str); 8] = [
    (400, "The request is wrong; `param` names the field"),
    (401, "The API key is missing or unknown"),
    (404, "Another model is served, or there is no such agent or context"),
    (408, "The body stopped coming"),
    (413, "The body is too large"),
    (429, "Too much is asked for at once; see `Retry-After`"),
    (500, "The server failed"),
    (503, "The server is stopping, or a part of it failed"),
];

fn refusals<E: ToSchema>(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let of = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(E::name().as_ref()))).build();
        ResponseBuilder::new().description(description).content("application/json", content).build().into()
    };
    statuses.iter().map(|(status, description)| (status.to_string(), of(description))).collect()
}

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals::<ErrorBody>(&REFUSALS)
    }
}

impl IntoResponses for AnthropicRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals::<AnthropicErrorBody>(&REFUSALS)
    }
}

impl IntoResponses for KeyRefusal {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals::<ErrorBody>(&REFUSALS[1..2])
    }
}

impl IntoResponses for AdminRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals::<ErrorBody>(&[
            (401, "The admin key is missing or wrong"),
            (403, "The server has no admin key"),
            (429, "Too much is asked for at once; see `Retry-After`"),
            (500, "The server failed"),
            (503, "The server is stopping"),
        ])
    }
}

impl IntoResponses for AgentRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals::<ErrorBody>(&[
            (400, "The query is wrong; `param` names the field"),
            (401, "The API key is missing or unknown"),
            (404, "There is no such agent or context"),
            (409, "There is no disk tier to move it to"),
            (429, "Too much is asked for at once; see `Retry-After`"),
            (500, "The server failed"),
            (503, "The server is stopping"),
        ])
    }
}
