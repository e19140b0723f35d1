//! `[[instances]]` and `[[tokenizers]]`, and an instance that is not in a file.

use super::super::problem::Invalid;
use super::super::raw::{self, Leaf};
use super::super::{Discovery, Endpoint, Instance, KvEvents, Named, Tokenizer};
use super::Check;
use super::endpoint::is_base;
use crate::routing::InstanceId;
use std::collections::HashMap;

const URL: &str = "write http(s)://host:port, without a path, or grpc(s)://host:port for vllm serve --grpc";
const INFERENCE_URL: &str = "write grpc(s)://host:port, with the Rust frontend's --grpc-port";
const RANKS: &str = "write how many ranks the instance has; rank r publishes on its events' port + r";
const NAME_BYTES_MAX: usize = 1024;

/// One instance that is not in a file.
pub(in crate::config) fn named(named: Named) -> Result<Vec<Instance>, Invalid> {
    let mut check = Check { problems: Vec::new() };
    for (field, value) in [("name", &named.name), ("url", &named.url), ("model", &named.model)] {
        if value.len() > NAME_BYTES_MAX {
            check.problem(&format!("instance.{field}"), "is too long", "write 1024 bytes at most");
        }
    }
    if named.data_parallel_ranks.is_some_and(|ranks| ranks as usize > InstanceId::LIMIT) {
        let what = format!("there are more than {}", InstanceId::LIMIT);
        check.problem("instance.data_parallel_ranks", what, RANKS);
    }
    if !check.problems.is_empty() {
        return Err(Invalid { problems: check.problems });
    }
    let given = |text: Option<String>| text.map(Leaf::Value);
    let is_subscribed = named.kv_events_endpoint.is_some()
        || named.kv_events_replay_endpoint.is_some()
        || named.kv_events_topic.is_some();
    let kv_events = is_subscribed.then(|| raw::KvEvents {
        endpoint: given(named.kv_events_endpoint),
        listen: None,
        replay_endpoint: given(named.kv_events_replay_endpoint),
        topic: given(named.kv_events_topic),
    });
    let raw = raw::Instance {
        name: given(Some(named.name)),
        url: given(Some(named.url)),
        inference_url: given(named.inference_url),
        model: given(Some(named.model)),
        data_parallel_ranks: named.data_parallel_ranks.map(Leaf::Value),
        kv_events,
        ..raw::Instance::default()
    };
    let instances = check.ranks("instance", raw);
    if check.problems.is_empty() { Ok(instances) } else { Err(Invalid { problems: check.problems }) }
}

impl Check {
    pub(super) fn instances(&mut self, raw: Vec<raw::Instance>, may_be_none: bool) -> Vec<Instance> {
        if raw.is_empty() && !may_be_none {
            self.problem(
                "instances",
                "there are none",
                "add an [[instances]] section for each vLLM instance, or say in [discovery] where they are found",
            );
        }
        if raw.len() > InstanceId::LIMIT {
            let what = format!("there are {}, and a router knows {} at most", raw.len(), InstanceId::LIMIT);
            self.problem("instances", what, "split the fleet between several routers");
        }
        let (mut names, mut urls, mut listened) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut checked = Vec::with_capacity(raw.len());
        for (at, instance) in raw.into_iter().enumerate() {
            let path = format!("instances[{at}]");
            let mut ranks = self.ranks(&path, instance);
            if let Some(first) = ranks.first() {
                self.unique(&format!("{path}.name"), first.section(), &mut names);
                self.unique(&format!("{path}.url"), &first.url, &mut urls);
                if let Some(events) = first.kv_events.as_ref().filter(|events| events.listens) {
                    self.unique(&format!("{path}.kv_events.listen"), &events.endpoint.to_string(), &mut listened);
                }
            }
            checked.append(&mut ranks);
        }
        if checked.len() > InstanceId::LIMIT {
            let what = format!("there are {} with their ranks, and {} at most", checked.len(), InstanceId::LIMIT);
            self.problem("instances", what, "split the fleet between several routers");
        }
        checked
    }

    /// An instance, or one for each of its data-parallel ranks.
    pub(super) fn ranks(&mut self, path: &str, raw: raw::Instance) -> Vec<Instance> {
        let ranks_path = format!("{path}.data_parallel_ranks");
        let ranks = self.at_least_one(&ranks_path, raw.data_parallel_ranks.as_ref().map(Leaf::of));
        let instance = self.instance(path, raw);
        match ranks {
            Some(ranks @ 2..) => match expand(&instance, ranks) {
                Some(expanded) => expanded,
                None => {
                    self.problem(&ranks_path, format!("there are no {ranks} ports for events"), RANKS);
                    vec![instance]
                }
            },
            Some(_) | None => vec![instance],
        }
    }

    pub(super) fn instance(&mut self, path: &str, raw: raw::Instance) -> Instance {
        let name = self.text(&format!("{path}.name"), raw.name, "give it a name of its own, such as \"vllm-0\"");
        let model = self.text(&format!("{path}.model"), raw.model, "write the name that the instance serves it under");
        let url_path = format!("{path}.url");
        let url = self.text(&url_path, raw.url, URL);
        let is_grpc = is_base(&url, &["grpc://", "grpcs://"]);
        if !url.is_empty() && !is_grpc && !is_base(&url, &["http://", "https://"]) {
            self.problem(&url_path, format!("{url:?} is not a base URL"), URL);
        }
        let inference_path = format!("{path}.inference_url");
        let inference_url = self.leaf(&inference_path, raw.inference_url, INFERENCE_URL);
        if inference_url.as_deref().is_some_and(|url| !is_base(url, &["grpc://", "grpcs://"])) {
            self.problem(
                &inference_path,
                format!("{:?} is not one", inference_url.as_deref().unwrap_or_default()),
                INFERENCE_URL,
            );
        } else if inference_url.is_some() && is_grpc {
            self.problem(
                &inference_path,
                "the Rust frontend's HTTP is its url",
                "write http://host:port as the url, or remove this",
            );
        }
        let kv_events = raw.kv_events.and_then(|raw| self.kv_events(&format!("{path}.kv_events"), raw));
        let access = raw::Access { server_name: raw.server_name, api_key: raw.api_key, api_key_file: raw.api_key_file };
        let access = self.access(path, access);
        Instance { name, url, inference_url, data_parallel_rank: None, model, kv_events, access }
    }

    pub(super) fn tokenizers(
        &mut self,
        raw: Vec<raw::Tokenizer>,
        instances: &[Instance],
        discovery: &Discovery,
    ) -> Vec<Tokenizer> {
        let (mut models, mut checked) = (HashMap::new(), Vec::with_capacity(raw.len()));
        let found = discovery.models();
        let is_served = |model: &str| {
            instances.iter().any(|instance| instance.model == model)
                || found.as_ref().is_none_or(|found| found.contains(model))
        };
        for (at, tokenizer) in raw.into_iter().enumerate() {
            let model_path = format!("tokenizers[{at}].model");
            let model = self.text(&model_path, tokenizer.model, "write the model that it belongs to");
            self.unique(&model_path, &model, &mut models);
            if !model.is_empty() && !is_served(&model) {
                self.problem(&model_path, format!("no instance serves {model:?}"), "write an instance's model");
            }
            let advice = "write a folder with tokenizer.json and the chat template in it";
            let path = self.text(&format!("tokenizers[{at}].path"), tokenizer.path, advice).into();
            checked.push(Tokenizer { model, path });
        }
        checked
    }
}

/// One instance for each data-parallel rank behind a URL; vLLM publishes rank r's events on the port + r. `None` when there
/// are not so many ports.
fn expand(instance: &Instance, ranks: u32) -> Option<Vec<Instance>> {
    let after = |endpoint: &Endpoint, rank: u16| {
        Some(Endpoint { host: endpoint.host.clone(), port: endpoint.port.checked_add(rank)? })
    };
    (0..u16::try_from(ranks).ok()?)
        .map(|rank| {
            let kv_events = match &instance.kv_events {
                Some(events) => Some(KvEvents {
                    endpoint: after(&events.endpoint, rank)?,
                    listens: events.listens,
                    replay: match &events.replay {
                        Some(replay) => Some(after(replay, rank)?),
                        None => None,
                    },
                    topic: events.topic.clone(),
                }),
                None => None,
            };
            let name = format!("{}.dp{rank}", instance.name);
            Some(Instance { name, data_parallel_rank: Some(u32::from(rank)), kv_events, ..instance.clone() })
        })
        .collect()
}
