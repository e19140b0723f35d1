//! Waiting for an instance to have room. Whose turn it is says [`Queue`]; here are the tasks that wait, and what wakes them.
//!
//! What wakes them is facts that may have made room, and for those who are held the time at which there is some by estimate.
//! Dropping a wait leaves the queue, and hands the turn on. Who is only held is never refused for it: where it cannot be held, or
//! no longer, it is placed at once.

use super::core::{Core, Room};
use super::ingress::caller::Caller;
use super::telemetry::labels::{ShedReason, WaitEnd};
use crate::config::{self, Protocol};
use crate::routing::admission::{Ask, CallerKey, Limits, PoolKey, Priority, Queue, Queued, Refusal, Ticket, Waited};
use crate::routing::{Decision, Fact, InstanceId, RequestId, RouteError, Time};
use axum::http::{Extensions, HeaderMap};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use twox_hash::XxHash3_64;

/// The header, or metadata, that says how urgent a request is: vLLM's number, lower is earlier, or the name of a class.
const PRIORITY: &str = "x-warmpath-priority";

/// Those who wait for room.
pub(super) struct Admission {
    state: Mutex<State>,
    /// How many wait; looked at without the lock by whoever makes room.
    waiting: AtomicUsize,
    /// Told when there is to be a look at those who are held, sooner than was known.
    sooner: Notify,
}

/// What a request becomes when it is placed.
pub(super) trait Booked {
    /// Its reservation, where it has one.
    fn request(&self) -> Option<RequestId>;
}

impl Booked for Decision {
    fn request(&self) -> Option<RequestId> {
        Some(self.request)
    }
}

struct State {
    queue: Queue,
    waiters: BTreeMap<Ticket, Waiter>,
    wait_max: Duration,
    is_stopping: bool,
}

struct Waiter {
    wake: Arc<Notify>,
    told: Option<Told>,
}

/// What one who waits is woken for.
#[derive(Clone, Copy)]
enum Told {
    Turn,
    /// By its own clock.
    TooLate,
    Displaced,
    Stopping,
}

/// Why a request was not placed.
#[derive(Clone, Debug)]
pub(super) enum Refused {
    Route(RouteError),
    Shed(Shed),
    Stopping,
}

/// All that may take the request are saturated, and it cannot wait, or waited long enough.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("all instances that may take the request are saturated; try again in {} s", self.seconds())]
pub(super) struct Shed {
    pub retry_after: Duration,
}

impl Shed {
    /// As `Retry-After` has it.
    pub fn seconds(&self) -> u64 {
        self.retry_after.as_secs_f64().ceil() as u64
    }
}

/// What is not a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{PRIORITY} is neither a whole number nor high, normal or low")]
pub(super) struct BadPriority;

/// The class of a request: its header says, or else its body, or else what is set for its caller.
pub(super) fn priority(
    headers: &HeaderMap,
    body: Option<i64>,
    extensions: &Extensions,
) -> Result<Priority, BadPriority> {
    let Some(said) = headers.get(PRIORITY) else {
        let default = || extensions.get::<Priority>().copied().unwrap_or_default();
        return Ok(body.map_or_else(default, Priority::of));
    };
    let said = said.to_str().map_err(|_| BadPriority)?.trim();
    let number = || said.parse().map(Priority::of).map_err(|_| BadPriority);
    Priority::named(said).map_or_else(number, Ok)
}

/// Among whom room is shared.
pub(super) fn caller(extensions: &Extensions) -> CallerKey {
    CallerKey::of(extensions.get::<Caller>().map_or(Caller::ANONYMOUS, |caller| &caller.name))
}

/// Requests for one model over one protocol, limited to the same instances where they are, find room together.
pub(super) fn pool(model: &str, protocol: Option<Protocol>, only: Option<&[InstanceId]>) -> PoolKey {
    let mut spelt = model.as_bytes().to_vec();
    spelt.extend([0, protocol.map_or(0, |protocol| 1 + protocol as u8), u8::from(only.is_some())]);
    spelt.extend(only.unwrap_or_default().iter().flat_map(|instance| instance.0.to_le_bytes()));
    PoolKey(XxHash3_64::oneshot(&spelt))
}

impl Admission {
    pub fn new(config: &config::Admission) -> Self {
        let queue = Queue::new(limits(config));
        let state = State { queue, waiters: BTreeMap::new(), wait_max: config.wait_max, is_stopping: false };
        Admission { state: Mutex::new(state), waiting: AtomicUsize::new(0), sooner: Notify::new() }
    }

    /// From now on this holds, for those who come.
    pub fn set(&self, config: &config::Admission) {
        let state = &mut *self.state.lock();
        state.queue.set_limits(limits(config));
        state.wait_max = config.wait_max;
    }

    /// Places a request as soon as `place` finds room for it: at once, or after those who wait for the same instances.
    pub async fn place<T: Booked>(
        &self,
        core: &Core,
        ask: Ask,
        deadline: Option<Instant>,
        mut place: impl FnMut(Room) -> Result<T, RouteError>,
    ) -> Result<T, Refused> {
        let is_first = self.waiting.load(Ordering::SeqCst) == 0 || !self.state.lock().queue.waits(ask.pool);
        let refusal = match is_first {
            true => refused_or(place(Room::Needed { waited: Duration::ZERO })),
            // What it would take is asked for only where it matters.
            false if core.router().holds() => refused_or(place(Room::Behind)),
            false => Ok(Refusal::Saturated { prefill: Duration::ZERO }),
        };
        let refusal = match refusal {
            Ok(refusal) => refusal,
            Err(placed) => return placed.map_err(Refused::Route),
        };
        let waiting = match self.join(core, ask, refusal) {
            Ok(waiting) => waiting,
            Err(_) if refusal.is_held() => return place(Room::Made).map_err(Refused::Route),
            Err(refused) => {
                if let Refused::Shed(_) = refused {
                    core.metrics().shed.of(ShedReason::Full).increment(1);
                }
                return Err(refused);
            }
        };
        let wait_max = self.state.lock().wait_max;
        waiting.until(deadline, Instant::now() + wait_max, place).await
    }

    /// A fact was told: who waits may find room now.
    pub fn told(&self, makes_room: bool) {
        if makes_room && self.waiting.load(Ordering::SeqCst) > 0 {
            let state = &mut *self.state.lock();
            state.queue.room();
            state.pass_on();
        }
    }

    /// Looks at those who are held whenever, by estimate, there is room for one of them.
    pub async fn keep_looking(core: Arc<Core>, stop: CancellationToken) -> Result<(), Infallible> {
        let admission = core.admission();
        loop {
            let next = admission.state.lock().queue.next_look();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep(at.since(core.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = admission.sooner.notified() => {}
                () = due => admission.look(core.now()),
            }
        }
    }

    fn look(&self, now: Time) {
        let state = &mut *self.state.lock();
        if state.queue.look(now) {
            state.pass_on();
        }
    }

    /// Lets everyone go who waits, and nobody wait any more.
    pub fn stop(&self) {
        let state = &mut *self.state.lock();
        state.is_stopping = true;
        state.waiters.values_mut().for_each(|waiter| waiter.tell(Told::Stopping));
    }

    /// What waits in a class.
    pub fn queued(&self, priority: Priority) -> Queued {
        self.state.lock().queue.queued(priority)
    }

    /// How long the one that waits longest has waited.
    pub fn longest_wait(&self, core: &Core) -> Duration {
        self.state.lock().queue.longest_wait(core.now())
    }

    fn join<'a>(&'a self, core: &'a Core, ask: Ask, refusal: Refusal) -> Result<Waiting<'a>, Refused> {
        let now = core.now();
        let state = &mut *self.state.lock();
        if state.is_stopping {
            return Err(Refused::Stopping);
        }
        let looks_at = state.queue.next_look();
        let pushed = state.queue.push(now, ask, &refusal);
        let (ticket, displaced) = pushed
            .map_err(|_| Refused::Shed(Shed { retry_after: state.queue.retry_after(now, ask.pool, ask.tokens) }))?;
        for gone in displaced {
            state.waiters.get_mut(&gone).expect("whoever is queued waits").tell(Told::Displaced);
        }
        let wake = Arc::new(Notify::new());
        state.waiters.insert(ticket, Waiter { wake: Arc::clone(&wake), told: None });
        // Before it tries: what makes room from here on looks for it.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        state.pass_on();
        self.tell_sooner(looks_at, state);
        let (since, end) = (Instant::now(), WaitEnd::Left);
        Ok(Waiting { admission: self, core, ask, ticket, wake, since, end, refusal, waited: None })
    }

    /// Has the next look taken at its time, where it was another before.
    fn tell_sooner(&self, before: Option<Time>, state: &State) {
        if state.queue.next_look() != before {
            self.sooner.notify_one();
        }
    }
}

/// Why it has to wait, or else what became of it.
fn refused_or<T>(placed: Result<T, RouteError>) -> Result<Refusal, Result<T, RouteError>> {
    match placed {
        Ok(placed) => Err(Ok(placed)),
        Err(error) => Refusal::of(&error).ok_or(Err(error)),
    }
}

fn limits(config: &config::Admission) -> Limits {
    Limits { requests_max: config.queue_requests_max, bytes_max: config.queue_bytes_max }
}

impl State {
    /// Wakes who is next, if anyone may try.
    fn pass_on(&mut self) {
        if let Some(ticket) = self.queue.next_turn() {
            self.waiters.get_mut(&ticket).expect("whoever is queued waits").tell(Told::Turn);
        }
    }
}

impl Waiter {
    fn tell(&mut self, told: Told) {
        self.told = Some(told);
        self.wake.notify_one();
    }
}

/// One who waits. Dropping it leaves the queue.
struct Waiting<'a> {
    admission: &'a Admission,
    core: &'a Core,
    ask: Ask,
    ticket: Ticket,
    wake: Arc<Notify>,
    since: Instant,
    end: WaitEnd,
    /// Why it waits.
    refusal: Refusal,
    /// How it waited, once it is admitted.
    waited: Option<Waited>,
}

impl Waiting<'_> {
    /// Waits for its turn until its client has enough, or it waited as long as anyone may.
    async fn until<T: Booked>(
        mut self,
        deadline: Option<Instant>,
        latest: Instant,
        mut place: impl FnMut(Room) -> Result<T, RouteError>,
    ) -> Result<T, Refused> {
        let until = deadline.map_or(latest, |deadline| deadline.min(latest));
        loop {
            let woken = tokio::time::timeout_at(until.into(), self.wake.notified()).await;
            let (end, refused) = match woken.map_or(Some(Told::TooLate), |()| self.told()) {
                None => continue,
                Some(Told::Turn) => match self.place(&mut place) {
                    Ok(None) => continue,
                    Ok(Some(placed)) => return Ok(self.admitted(placed)),
                    Err(error) => (WaitEnd::Failed, Refused::Route(error)),
                },
                Some(Told::TooLate) => (WaitEnd::Deadline, Refused::Shed(self.shed())),
                Some(Told::Displaced) => (WaitEnd::Displaced, Refused::Shed(self.shed())),
                Some(Told::Stopping) => (WaitEnd::Stopping, Refused::Stopping),
            };
            // Whoever is held could have been placed all along. Where its client gave up there is no use in that.
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if self.refusal.is_held()
                && !is_over
                && end != WaitEnd::Failed
                && let Ok(placed) = place(Room::Made)
            {
                return Ok(self.admitted(placed));
            }
            self.end = end;
            return Err(refused);
        }
    }

    fn told(&self) -> Option<Told> {
        self.admission.state.lock().waiters.get_mut(&self.ticket).and_then(|waiter| waiter.told.take())
    }

    /// Has its turn; `None` where it is to wait on.
    fn place<T>(&mut self, place: &mut impl FnMut(Room) -> Result<T, RouteError>) -> Result<Option<T>, RouteError> {
        match refused_or(place(Room::Needed { waited: self.since.elapsed() })) {
            Err(placed) => placed.map(Some),
            Ok(refusal) => {
                self.refusal = refusal;
                let state = &mut *self.admission.state.lock();
                let looks_at = state.queue.next_look();
                state.queue.held_back(self.core.now(), self.ticket, &refusal);
                state.pass_on();
                self.admission.tell_sooner(looks_at, state);
                Ok(None)
            }
        }
    }

    fn admitted<T: Booked>(mut self, placed: T) -> T {
        // It may have been displaced just now; placed it is all the same.
        let waited = self.admission.state.lock().queue.admitted(self.core.now(), self.ticket);
        (self.end, self.waited) = (WaitEnd::Admitted, waited);
        if let (Some(request), Some(waited)) = (placed.request(), waited) {
            self.core.journal().waited(request, waited);
        }
        placed
    }

    fn shed(&self) -> Shed {
        let queue = &self.admission.state.lock().queue;
        Shed { retry_after: queue.retry_after(self.core.now(), self.ask.pool, self.ask.tokens) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let state = &mut *self.admission.state.lock();
        state.queue.remove(self.ticket);
        state.waiters.remove(&self.ticket);
        self.admission.waiting.fetch_sub(1, Ordering::SeqCst);
        state.pass_on();
        let metrics = self.core.metrics();
        metrics.queue_wait.of(self.end).record(self.since.elapsed().as_secs_f64());
        if let Some(held) = self.waited.filter(|waited| waited.was_held) {
            metrics.held_seconds.record(held.time.as_secs_f64());
        }
        if let Some(reason) = ShedReason::of(self.end) {
            metrics.shed.of(reason).increment(1);
        }
    }
}

/// Whether a fact may have made room at an instance.
pub(super) fn makes_room(fact: &Fact<'_>) -> bool {
    match fact {
        Fact::Joined { .. }
        | Fact::Changed { .. }
        | Fact::Left { .. }
        | Fact::Reported { .. }
        | Fact::FirstToken { .. }
        | Fact::Finished { .. }
        | Fact::Abandoned { .. }
        | Fact::Ruled { .. }
        // A lease may have run out, or a report become too old to be believed.
        | Fact::TimePassed => true,
        Fact::Stepped { .. }
        | Fact::Known { .. }
        | Fact::Stored { .. }
        | Fact::Copied { .. }
        | Fact::Removed { .. }
        | Fact::GroupStored { .. }
        | Fact::GroupRemoved { .. }
        | Fact::Cleared { .. }
        | Fact::Sized { .. }
        | Fact::Delivered { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_header_counts_before_the_body_and_the_body_before_the_callers_default() {
        let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
        assert_eq!(priority(&headers, None, &extensions), Ok(Priority::Normal));
        extensions.insert(Priority::Low);
        assert_eq!(priority(&headers, None, &extensions), Ok(Priority::Low));
        assert_eq!(priority(&headers, Some(-3), &extensions), Ok(Priority::High));
        for (said, meant) in [
            ("high", Ok(Priority::High)),
            ("5", Ok(Priority::Low)),
            ("0", Ok(Priority::Normal)),
            ("soon", Err(BadPriority)),
        ] {
            headers.insert(PRIORITY, HeaderValue::from_static(said));
            assert_eq!(priority(&headers, Some(-3), &extensions), meant, "{said}");
        }
    }

    #[test]
    fn pools_differ_by_model_protocol_and_instances() {
        let some = [InstanceId(1)];
        let pools = [
            pool("m", Some(Protocol::OpenAi), None),
            pool("m", Some(Protocol::Inference), None),
            pool("m", None, None),
            pool("n", None, None),
            pool("m", None, Some(&some)),
            pool("m", None, Some(&[])),
        ];
        for (at, one) in pools.iter().enumerate() {
            assert!(!pools[..at].contains(one), "number {at} is another's");
        }
    }
}
