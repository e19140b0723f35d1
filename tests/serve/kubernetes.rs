//! Instances found through the API of Kubernetes, of which a small one stands here: lists, watches, bookmarks of what was seen,
//! and a past that can be forgotten.

use crate::binary::{Router, file, names};
use crate::support::{MODEL, mock_config, post, start_mock};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// One namespace, with objects of one kind.
#[derive(Clone)]
struct Cluster {
    state: Arc<Mutex<Objects>>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    by_name: BTreeMap<String, Value>,
    /// What happened, each with its version.
    log: Vec<(u64, Value)>,
    /// What is older is forgotten.
    oldest: u64,
    is_down: bool,
    asked: Vec<String>,
}

impl Cluster {
    async fn start() -> (Cluster, SocketAddr) {
        let cluster = Cluster { state: Arc::default(), version: watch::Sender::new(1) };
        let routes = axum::Router::new()
            .route("/apis/discovery.k8s.io/v1/namespaces/{namespace}/{kind}", axum::routing::get(answer))
            .route("/api/v1/namespaces/{namespace}/{kind}", axum::routing::get(answer))
            .with_state(cluster.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (cluster, address)
    }

    fn put(&self, name: &str, mut object: Value) {
        self.change(|objects, version| {
            object["metadata"]["name"] = json!(name);
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            let kind = if objects.by_name.contains_key(name) { "MODIFIED" } else { "ADDED" };
            objects.by_name.insert(name.to_owned(), object.clone());
            json!({"type": kind, "object": object})
        });
    }

    fn delete(&self, name: &str) {
        self.change(|objects, version| {
            let mut object = objects.by_name.remove(name).unwrap();
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            json!({"type": "DELETED", "object": object})
        });
    }

    fn change(&self, change: impl FnOnce(&mut Objects, u64) -> Value) {
        self.version.send_modify(|version| {
            *version += 1;
            let mut objects = self.state.lock().unwrap();
            let event = change(&mut objects, *version);
            objects.log.push((*version, event));
        });
    }

    /// What happened so far cannot be asked for any more, and whoever watches is told so.
    fn forget(&self) {
        self.version.send_modify(|version| {
            *version += 1;
            let mut objects = self.state.lock().unwrap();
            objects.log.clear();
            objects.oldest = *version;
        });
    }

    fn set_down(&self, is_down: bool) {
        self.state.lock().unwrap().is_down = is_down;
    }
}

/// What is asked for, decoded.
fn query(uri: &Uri) -> HashMap<String, String> {
    let decoded = uri.query().unwrap_or_default().replace("%2F", "/").replace("%3D", "=");
    let pairs = decoded.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn answer(State(cluster): State<Cluster>, Path((namespace, kind)): Path<(String, String)>, uri: Uri) -> Response {
    let asked = query(&uri);
    let selector = asked.get("labelSelector").cloned().unwrap_or_default();
    {
        let mut objects = cluster.state.lock().unwrap();
        objects.asked.push(format!("{namespace} {kind} {selector}"));
        if objects.is_down {
            return (StatusCode::SERVICE_UNAVAILABLE, "down").into_response();
        }
    }
    if asked.get("watch").is_none_or(|watch| watch != "true") {
        let version = cluster.version.borrow().to_string();
        let items: Vec<Value> = cluster.state.lock().unwrap().by_name.values().cloned().collect();
        let list =
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
        return axum::Json(list).into_response();
    }
    let mut seen: u64 = asked["resourceVersion"].parse().unwrap();
    let mut versions = cluster.version.subscribe();
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Bytes, std::convert::Infallible>>(16);
    tokio::spawn(async move {
        loop {
            let version = *versions.borrow_and_update();
            let (gone, news): (bool, Vec<Value>) = {
                let objects = cluster.state.lock().unwrap();
                let news = objects.log.iter().filter(|(at, _)| *at > seen).map(|(_, event)| event.clone());
                (seen < objects.oldest || objects.is_down, news.collect())
            };
            seen = version;
            let mut lines: Vec<Value> = news;
            if gone {
                let status = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
                lines.push(json!({"type": "ERROR", "object": status}));
            }
            for line in lines {
                if send.send(Ok(Bytes::from(format!("{line}\n")))).await.is_err() {
                    return;
                }
            }
            if gone || versions.changed().await.is_err() {
                return;
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receive)).into_response()
}

fn slice(endpoints: &[(&str, &str, bool)]) -> Value {
    let endpoints = endpoints.iter().map(|(pod, address, ready)| {
        json!({
            "addresses": [address],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": pod},
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"namespace": "serving"},
        "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(), "ports": [{"port": 8000}],
    })
}

fn pod(address: &str, ready: bool, deleting: bool) -> Value {
    let mut metadata = json!({"namespace": "serving", "labels": {"app": "vllm"}});
    if deleting {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let ready = if ready { "True" } else { "False" };
    let status = json!({"podIP": address, "conditions": [{"type": "Ready", "status": ready}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status})
}

fn start(api: SocketAddr, which: &str, port: u16) -> Router {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let context = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": format!("http://{api}")}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "serving"}}],
        "users": [{"name": "me", "user": {}}],
    });
    std::fs::write(&kubeconfig, context.to_string()).unwrap();
    let path = folder.path().join("warmpath.toml");
    let configuration = file(&format!(
        "[discovery]\nempty_seconds = 0\n[[discovery.kubernetes]]\n{which}\nport = {port}\ninstance = {{ model = \"m\" }}\n"
    ));
    std::fs::write(&path, configuration).unwrap();
    Router::start_in(folder, &path, &[("KUBECONFIG", kubeconfig.to_str().unwrap())])
}

#[tokio::test]
async fn the_ready_endpoints_of_a_service_are_followed() {
    let (cluster, api) = Cluster::start().await;
    let mock = start_mock(mock_config()).await;
    cluster.put("vllm-abc", slice(&[("vllm-0", "127.0.0.1", true), ("vllm-1", "127.0.0.2", false)]));
    let router = start(api, "service = \"vllm\"", mock.http.port());
    router.until("the ready one", |status| names(status) == ["vllm-0"]).await;
    // In the namespace of the context, and only slices of the service.
    let asked = "serving endpointslices kubernetes.io/service-name=vllm".to_owned();
    assert!(cluster.state.lock().unwrap().asked.contains(&asked));
    let body = json!({"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 1});
    assert_eq!(post(router.http, "/v1/completions", &body).await.0, 200);

    cluster.put("vllm-abc", slice(&[("vllm-0", "127.0.0.1", true), ("vllm-1", "127.0.0.2", true)]));
    cluster.put("vllm-def", slice(&[("vllm-2", "127.0.0.3", true), ("vllm-1", "127.0.0.2", true)]));
    router.until("the others", |status| names(status) == ["vllm-0", "vllm-1", "vllm-2"]).await;
    cluster.put("vllm-abc", slice(&[("vllm-0", "127.0.0.1", true)]));
    cluster.delete("vllm-def");
    router.until("their leaving", |status| names(status) == ["vllm-0"]).await;
}

#[tokio::test]
async fn ready_pods_with_a_label_are_followed_and_those_that_are_deleted_are_gone() {
    let (cluster, api) = Cluster::start().await;
    cluster.put("a", pod("10.0.0.1", true, false));
    cluster.put("b", pod("10.0.0.2", false, false));
    let router = start(api, "pods = \"app=vllm\"\nnamespace = \"other\"", 8000);
    let status = router.until("the ready one", |status| names(status) == ["a"]).await;
    assert_eq!(status.instances[0].url, "http://10.0.0.1:8000");
    assert!(cluster.state.lock().unwrap().asked.contains(&"other pods app=vllm".to_owned()));
    cluster.put("b", pod("10.0.0.2", true, false));
    router.until("the other one", |status| names(status) == ["a", "b"]).await;
    cluster.put("a", pod("10.0.0.1", true, true));
    router.until("the deleted one's leaving", |status| names(status) == ["b"]).await;
    // It comes back elsewhere under its name, as a StatefulSet's does.
    cluster.put("a", pod("10.0.0.9", true, false));
    let status = router.until("its return", |status| status.instances.len() == 2).await;
    let urls: Vec<&str> = status.instances.iter().map(|instance| instance.url.as_str()).collect();
    assert!(urls.contains(&"http://10.0.0.9:8000"), "{urls:?}");
}

#[tokio::test]
async fn an_api_that_is_down_or_forgets_loses_nobody() {
    let (cluster, api) = Cluster::start().await;
    cluster.put("s", slice(&[("vllm-0", "127.0.0.1", true)]));
    let router = start(api, "service = \"vllm\"", 8000);
    router.until("the first one", |status| names(status) == ["vllm-0"]).await;
    cluster.set_down(true);
    cluster.forget();
    let status = router.until("the failure", |status| status.sources[0].problem.is_some()).await;
    assert_eq!(names(&status), ["vllm-0"]);
    cluster.put("s", slice(&[("vllm-0", "127.0.0.1", true), ("vllm-1", "127.0.0.2", true)]));
    cluster.set_down(false);
    let back =
        |status: &warmpath::serve::Status| names(status) == ["vllm-0", "vllm-1"] && status.sources[0].problem.is_none();
    router.until("what was missed", back).await;
}
