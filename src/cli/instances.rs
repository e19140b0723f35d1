//! `warmpath instances`: the fleet of a running router, looked at and changed.

use super::client::refused;
use super::reach::Reach;
use crate::serve::proto::fleet_client::FleetClient;
use crate::serve::proto::router_client::RouterClient;
use crate::serve::proto::{
    Availability, Change, DeregisterRequest, DrainRequest, Instance, InstancesRequest, Knowledge,
    RegisterInstanceRequest, WatchRequest,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::io::Write;

/// Look at the instances of a running router, and change them.
///
/// Without a command: list.
///
///   warmpath instances
///   warmpath instances register vllm-2 http://vllm-2:8000 --model Qwen/Qwen3-32B
///   warmpath instances drain vllm-0          # nothing new; --resume undoes it
///   warmpath instances remove vllm-0         # waits for its requests first
///   warmpath instances watch --json
///
/// register, drain and remove speak to the router's admin port, and only from
/// the machine that it runs on. A registered instance stays until it is removed
/// or the router restarts: to keep one, write it into the configuration, too.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Instances {
    /// The router's gRPC address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000", global = true)]
    router: String,
    /// The router's admin address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090", global = true)]
    admin: String,
    /// Print JSON, a value a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every instance: whether it takes requests, what it has to do.
    List,
    /// Take an instance into the fleet.
    Register(Register),
    /// Give an instance no more requests; those that it has go on.
    Drain {
        /// The instance's name.
        name: String,
        /// Give it requests again instead.
        #[arg(long)]
        resume: bool,
    },
    /// Drain an instance and take it out of the fleet.
    Remove {
        /// The instance's name.
        name: String,
        /// Seconds that its requests may take to end; 3600 at most.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u32,
    },
    /// Print the fleet, then every change of it, until interrupted.
    Watch,
}

#[derive(Debug, clap::Args)]
struct Register {
    /// What to call it.
    name: String,
    /// Its base URL: http://host:port, or grpc://host:port.
    url: String,
    /// The name that it serves its model under.
    #[arg(long)]
    model: String,
    /// Where it speaks vllm.Inference, too: grpc://host:port.
    #[arg(long, value_name = "URL")]
    inference_url: Option<String>,
    /// How many data-parallel ranks it has.
    #[arg(long, value_name = "N")]
    data_parallel_ranks: Option<u32>,
    /// Where it publishes cache events: tcp://host:port. Else it is asked.
    #[arg(long, value_name = "ENDPOINT")]
    kv_events: Option<String>,
    /// Where published events can be asked for again: tcp://host:port.
    #[arg(long, value_name = "ENDPOINT", requires = "kv_events")]
    kv_replay: Option<String>,
}

impl Instances {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
        runtime.block_on(self.act())
    }

    async fn act(self) -> Result<()> {
        let Instances { router, admin, json, reach, command } = self;
        let mut out = std::io::stdout().lock();
        match command.unwrap_or(Command::List) {
            Command::List => {
                let mut client = RouterClient::new(reach.grpc(&router).await?);
                let answer = client.instances(InstancesRequest {}).await.map_err(refused)?.into_inner();
                for instance in &answer.instances {
                    list(&mut out, instance, json)?;
                }
            }
            Command::Register(register) => {
                let request = RegisterInstanceRequest {
                    name: register.name,
                    url: register.url,
                    model: register.model,
                    inference_url: register.inference_url,
                    data_parallel_ranks: register.data_parallel_ranks,
                    kv_events_endpoint: register.kv_events,
                    kv_events_replay_endpoint: register.kv_replay,
                    kv_events_topic: None,
                };
                let mut client = FleetClient::new(reach.grpc(&admin).await?);
                let joined = client.register_instance(request).await.map_err(refused)?.into_inner().instances;
                match json {
                    true => writeln!(out, "{}", json!({ "joined": joined }))?,
                    false => writeln!(out, "joined: {}", joined.join(", "))?,
                }
            }
            Command::Drain { name: instance, resume } => {
                let mut client = FleetClient::new(reach.grpc(&admin).await?);
                let request = DrainRequest { instance, resume };
                let in_flight = client.drain(request).await.map_err(refused)?.into_inner().in_flight;
                match json {
                    true => writeln!(out, "{}", json!({ "in_flight": in_flight }))?,
                    false => writeln!(out, "{in_flight} requests in flight there")?,
                }
            }
            Command::Remove { name: instance, wait } => {
                let mut client = FleetClient::new(reach.grpc(&admin).await?);
                let request = DeregisterRequest { instance, wait_seconds_max: Some(wait) };
                let unfinished = client.deregister(request).await.map_err(refused)?.into_inner().unfinished;
                match json {
                    true => writeln!(out, "{}", json!({ "unfinished": unfinished }))?,
                    false => writeln!(out, "removed; {unfinished} requests had not ended")?,
                }
            }
            Command::Watch => {
                let mut client = RouterClient::new(reach.grpc(&router).await?);
                let mut changes = client.watch(WatchRequest {}).await.map_err(refused)?.into_inner();
                while let Some(change) = changes.message().await.map_err(refused)? {
                    let what = match change.change() {
                        Change::SnapshotEnd => continue,
                        Change::Joined => "joined",
                        Change::State => "state",
                        Change::Left => "left",
                        Change::Unspecified => "unknown",
                    };
                    let (available, known) = (availability(change.availability()), knowledge(change.knowledge()));
                    if json {
                        let line = json!({
                            "change": what, "instance": change.instance, "url": change.url, "model": change.model,
                            "availability": available, "knowledge": known,
                        });
                        writeln!(out, "{line}")?;
                    } else {
                        writeln!(out, "{what:<7} {} at {}  {available} {known}", change.instance, change.url)?;
                    }
                    out.flush()?;
                }
            }
        }
        Ok(())
    }
}

fn list(out: &mut impl Write, instance: &Instance, json: bool) -> Result<()> {
    let (available, known) = (availability(instance.availability()), knowledge(instance.knowledge()));
    let load = instance.load.unwrap_or_default();
    if json {
        let line = json!({
            "instance": instance.name, "url": instance.url, "model": instance.model, "availability": available,
            "knowledge": known, "cached_blocks": instance.cached_blocks, "prefill_requests": load.prefill_requests,
            "prefill_tokens": load.prefill_tokens, "decode_requests": load.decode_requests,
        });
        return Ok(writeln!(out, "{line}")?);
    }
    let Instance { name, url, model, cached_blocks, .. } = instance;
    let (prefill, decode) = (load.prefill_requests, load.decode_requests);
    let does = format!("{prefill} in prefill, {decode} in decode, {cached_blocks} blocks cached");
    Ok(writeln!(out, "{name} at {url}, {model}: {available}, {known}; {does}")?)
}

fn availability(availability: Availability) -> &'static str {
    match availability {
        Availability::Unspecified => "",
        Availability::Ready => "ready",
        Availability::Draining => "draining",
        Availability::Down => "down",
    }
}

pub(super) fn knowledge(knowledge: Knowledge) -> &'static str {
    match knowledge {
        Knowledge::Unspecified => "",
        Knowledge::Exact => "exact",
        Knowledge::Degraded => "degraded",
        Knowledge::Blind => "blind",
        Knowledge::Approximate => "approximate",
    }
}
