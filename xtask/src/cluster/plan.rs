//! What a space shall be and run, as data that is handed to its first process. Pure.

use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub hostname: String,
    pub mounts: Vec<Mount>,
    /// Files of /proc/sys that shall read so in this space.
    pub pretended: Vec<(String, String)>,
    pub programs: Vec<Program>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// A file system in memory.
    Empty {
        at: String,
    },
    Bind {
        what: String,
        at: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub command: Vec<String>,
    /// All of it.
    pub environment: Vec<(String, String)>,
    pub log: String,
    pub after: Option<After>,
}

/// What a program waits for before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    File(String),
    /// Address and port.
    Server(String),
}

impl Plan {
    pub fn render(&self) -> Value {
        let mount = |mount: &Mount| match mount {
            Mount::Empty { at } => json!({"at": at}),
            Mount::Bind { what, at } => json!({"at": at, "what": what}),
        };
        let after = |after: &After| match after {
            After::File(path) => json!({"file": path}),
            After::Server(at) => json!({"server": at}),
        };
        let program = |program: &Program| {
            json!({"name": program.name, "command": program.command, "environment": program.environment,
                   "log": program.log, "after": program.after.as_ref().map(after)})
        };
        json!({
            "hostname": self.hostname,
            "mounts": self.mounts.iter().map(mount).collect::<Vec<_>>(),
            "pretended": self.pretended,
            "programs": self.programs.iter().map(program).collect::<Vec<_>>(),
        })
    }

    pub fn parse(value: &Value) -> Option<Self> {
        let mount = |value: &Value| {
            let at = text(&value["at"])?;
            Some(
                text(&value["what"]).map_or(Mount::Empty { at: at.clone() }, |what| Mount::Bind { what, at }),
            )
        };
        Some(Self {
            hostname: text(&value["hostname"])?,
            mounts: list(&value["mounts"], mount)?,
            pretended: list(&value["pretended"], pair)?,
            programs: list(&value["programs"], program)?,
        })
    }
}

fn program(value: &Value) -> Option<Program> {
    let after = &value["after"];
    let command = list(&value["command"], text)?;
    (!command.is_empty()).then_some(())?;
    Some(Program {
        name: text(&value["name"])?,
        command,
        environment: list(&value["environment"], pair)?,
        log: text(&value["log"])?,
        after: text(&after["file"]).map(After::File).or_else(|| text(&after["server"]).map(After::Server)),
    })
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(item).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn pair(value: &Value) -> Option<(String, String)> {
    Some((text(&value[0])?, text(&value[1])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let program = |after| Program {
            name: "etcd".into(),
            command: vec!["/bin/etcd".into(), "--flag".into()],
            environment: vec![("PATH".into(), "/bin".into())],
            log: "/log".into(),
            after,
        };
        let plan = Plan {
            hostname: "node-a".into(),
            mounts: vec![
                Mount::Empty { at: "/run".into() },
                Mount::Bind { what: "/x".into(), at: "/y".into() },
            ],
            pretended: vec![("/proc/sys/kernel/panic".into(), "10".into())],
            programs: vec![
                program(None),
                program(Some(After::File("/run/socket".into()))),
                program(Some(After::Server("10.0.0.1:80".into()))),
            ],
        };
        assert_eq!(Plan::parse(&plan.render()), Some(plan.clone()));
        let mut damaged = plan.render();
        damaged["programs"][0]["command"] = json!([]);
        assert_eq!(Plan::parse(&damaged), None);
    }
}
