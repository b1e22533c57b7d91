//! Three operators and an API server that answers late, twice never, and in any order; operators are killed, stand still,
//! let go. At no moment may two of them write.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use proptest::prelude::*;
use transfer_operator::leader::{
    Moment, Timing,
    decide::{Decision, Election},
    fence::Fence,
};

const OPERATORS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes, in milliseconds.
    Pass(u64),
    /// An operator does the next thing; one that never does stands still.
    Turn(usize),
    /// Its request reaches the API server.
    Arrive(usize),
    /// It hears the answer.
    Hear(usize),
    /// It gives up waiting; the request may still arrive.
    GiveUp(usize),
    /// A request that was given up arrives.
    Ghost(usize),
    /// It is killed and started again.
    Restart(usize),
    /// It lets go of the Lease and starts again.
    Release(usize),
    /// Somebody edits a label of the Lease.
    Edit,
}

fn step() -> impl Strategy<Value = Step> {
    let one = || 0..OPERATORS;
    prop_oneof![
        6 => (1_u64..4_000).prop_map(Step::Pass),
        1 => (9_000_u64..20_000).prop_map(Step::Pass),
        10 => one().prop_map(Step::Turn),
        10 => one().prop_map(Step::Arrive),
        10 => one().prop_map(Step::Hear),
        2 => one().prop_map(Step::GiveUp),
        2 => (0_usize..8).prop_map(Step::Ghost),
        1 => one().prop_map(Step::Restart),
        1 => one().prop_map(Step::Release),
        1 => Just(Step::Edit),
    ]
}

#[derive(Clone, Debug)]
enum Request {
    Get,
    Create(LeaseSpec),
    Patch(String, LeaseSpec),
}

#[derive(Clone, Debug)]
enum Answer {
    Found(Option<Lease>),
    Written(Lease),
    Conflict,
}

struct Operator {
    name: String,
    election: Election,
    fence: Fence,
    sent: Option<(Request, Moment)>,
    answer: Option<Answer>,
}

impl Operator {
    fn new(name: String) -> Self {
        let timing = Timing::of(Duration::from_secs(15));
        let election = Election::new(name.clone(), timing);
        Self { name, election, fence: Fence::closed(timing.deadline), sent: None, answer: None }
    }
}

#[derive(Default)]
struct Server {
    lease: Option<LeaseSpec>,
    version: u64,
}

impl Server {
    fn get(&self) -> Option<Lease> {
        let version = Some(self.version.to_string());
        let metadata = ObjectMeta { resource_version: version, ..ObjectMeta::default() };
        self.lease.clone().map(|spec| Lease { metadata, spec: Some(spec) })
    }

    fn serve(&mut self, request: Request) -> Answer {
        let spec = match request {
            Request::Get => return Answer::Found(self.get()),
            Request::Create(spec) if self.lease.is_none() => spec,
            Request::Patch(version, spec) if self.lease.is_some() && version == self.version.to_string() => {
                spec
            }
            Request::Create(_) | Request::Patch(..) => return Answer::Conflict,
        };
        self.lease = Some(spec);
        self.version += 1;
        self.get().map_or(Answer::Conflict, Answer::Written)
    }
}

struct Model {
    server: Server,
    operators: Vec<Operator>,
    ghosts: Vec<Request>,
    now: Moment,
    starts: usize,
    terms: usize,
}

impl Model {
    fn new() -> Self {
        let operators = (0..OPERATORS).map(|at| Operator::new(format!("{at}"))).collect();
        let now = Moment(Duration::from_secs(1_000));
        Self { server: Server::default(), operators, ghosts: Vec::new(), now, starts: OPERATORS, terms: 0 }
    }

    fn restart(&mut self, at: usize) {
        self.starts += 1;
        let new = Operator::new(format!("{at}-{}", self.starts));
        let old = std::mem::replace(&mut self.operators[at], new);
        self.ghosts.extend(old.sent.map(|(request, _)| request));
    }

    fn spec(&self, holder: Option<String>) -> LeaseSpec {
        let renewed = jiff::Timestamp::UNIX_EPOCH + self.now.0;
        LeaseSpec {
            holder_identity: holder,
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(renewed)),
            ..LeaseSpec::default()
        }
    }

    fn turn(&mut self, at: usize) {
        let operator = &self.operators[at];
        if operator.sent.is_some() {
            return;
        }
        let ours = self.spec(Some(operator.name.clone()));
        let request = match operator.election.decide(self.now) {
            Decision::Look => Request::Get,
            Decision::Create => Request::Create(ours),
            Decision::Acquire { version, .. } | Decision::Renew { version } => Request::Patch(version, ours),
            Decision::Wait(_) => return self.operators[at].election.doubt(),
            Decision::Lost(_) => return self.restart(at),
        };
        self.operators[at].sent = Some((request, self.now));
    }

    fn hear(&mut self, at: usize) {
        let (now, operator) = (self.now, &mut self.operators[at]);
        let Some(answer) = operator.answer.take() else { return };
        let Some((_, begun)) = operator.sent.take() else { return };
        match answer {
            Answer::Found(lease) => operator.election.saw(lease, now),
            Answer::Conflict => operator.election.doubt(),
            Answer::Written(lease) => {
                self.terms += usize::from(!operator.election.leads());
                operator.election.wrote(lease, begun);
                operator.fence.renewed(begun);
            }
        }
    }

    fn release(&mut self, at: usize) {
        let operator = &self.operators[at];
        let may = operator.election.leads() && operator.fence.may_write_at(self.now);
        operator.fence.shut();
        if let Decision::Renew { version } = operator.election.decide(self.now)
            && may
        {
            let request = Request::Patch(version, self.spec(None));
            self.ghosts.push(request);
        }
        self.restart(at);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(millis) => self.now = self.now.after(Duration::from_millis(millis)),
            Step::Turn(at) => self.turn(at),
            Step::Arrive(at) => {
                let operator = &mut self.operators[at];
                if let (Some((request, _)), None) = (&operator.sent, &operator.answer) {
                    operator.answer = Some(self.server.serve(request.clone()));
                }
            }
            Step::Hear(at) => self.hear(at),
            Step::GiveUp(at) => {
                let operator = &mut self.operators[at];
                let (sent, answer) = (operator.sent.take(), operator.answer.take());
                if let (Some((request, _)), None) = (sent, answer) {
                    self.ghosts.push(request);
                }
                operator.election.doubt();
            }
            Step::Ghost(at) if at < self.ghosts.len() => {
                let request = self.ghosts.swap_remove(at);
                self.server.serve(request);
            }
            Step::Ghost(_) => {}
            Step::Restart(at) => self.restart(at),
            Step::Release(at) => self.release(at),
            Step::Edit => self.server.version += 1,
        }
    }

    fn writers(&self) -> usize {
        self.operators.iter().filter(|operator| operator.fence.may_write_at(self.now)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_may_write(steps in proptest::collection::vec(step(), 1..200)) {
        let mut model = Model::new();
        for (at, step) in steps.iter().enumerate() {
            model.step(*step);
            prop_assert!(model.writers() <= 1, "two may write after step {at}: {step:?}");
        }
    }
}

/// The property would hold of operators that never lead, too.
#[test]
fn leaders_change_in_the_model() {
    let mut model = Model::new();
    let ends: [fn(usize) -> Step; 2] = [Step::Release, Step::Restart];
    for end in ends {
        for at in 0..OPERATORS {
            // Seen, seen again when it has lapsed, taken.
            for _ in 0..8 {
                [Step::Turn(at), Step::Arrive(at), Step::Hear(at)]
                    .into_iter()
                    .for_each(|step| model.step(step));
                if model.operators[at].election.leads() {
                    break;
                }
                model.step(Step::Pass(8_000));
            }
            assert!(model.operators[at].election.leads(), "{at}");
            model.step(end(at));
            model.step(Step::Ghost(0));
        }
    }
    assert_eq!(model.terms, 2 * OPERATORS);
}
