//! `check-policy`: checks a policy without Envoy.

mod caller;
mod session;
mod table;

use std::fmt::{self, Display};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use sigv4_core::credentials::Identity;
use sigv4_core::intake::IntakeConfig;
use sigv4_core::policy::{
    Caller, CallerPattern, PayloadMode, Policy, Route, RouteIdentity, SignatureLocation, Unmatched,
};
use sigv4_core::request::payload::{BodyInfo, PayloadPlan};
use sigv4_core::signing::Algorithm;
use sigv4_core::signing::{PayloadHash, is_s3};

use crate::policy_file::{Form, PolicyFile};

use caller::{CallerOptions, CallerSummary};
use session::session;
use table::write_table;

/// Check a policy without Envoy.
///
/// Exits with 0 and a summary, or with 1 and the line that the filter would log, which names the place and the fix.
#[derive(Debug, Args)]
pub struct CheckPolicy {
    /// A policy in JSON or YAML, or a Backstage app-config.yaml; `-` for standard input.
    file: PathBuf,

    /// Print the summary, or the error, as JSON on standard output.
    #[arg(long)]
    json: bool,

    /// Print the policy as the JSON that the filter reads, instead of a summary.
    #[arg(long, conflicts_with = "json")]
    convert: bool,

    #[command(flatten)]
    caller: CallerOptions,
}

/// The exit code if no route takes the caller's requests: the filter would answer them itself.
const REPLIED: u8 = 3;

impl CheckPolicy {
    /// Checks the file and prints the outcome.
    pub fn run(&self) -> ExitCode {
        let caller = match self.caller.caller() {
            Ok(caller) => caller,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        };
        let checked = read(&self.file).and_then(|content| check(&content, caller.as_ref()));
        let accepted = match &checked {
            Ok((_, summary)) if summary.is_refused() => ExitCode::from(REPLIED),
            _ => ExitCode::SUCCESS,
        };
        let (told, code) = match &checked {
            Ok((file, _)) if self.convert => (String::from_utf8_lossy(&file.json).into_owned(), accepted),
            Ok((_, summary)) if self.json => (serde_json::to_string_pretty(summary).unwrap_or_default(), accepted),
            Ok((_, summary)) => (summary.to_string(), accepted),
            Err(error) if self.json => (json!({ "error": error }).to_string(), ExitCode::FAILURE),
            Err(error) => {
                eprintln!("{}: {error}", self.name());
                return ExitCode::FAILURE;
            }
        };
        // A reader that closes the pipe has read enough.
        let _ = writeln!(io::stdout(), "{}", told.trim_end());
        code
    }

    fn name(&self) -> String {
        if self.file == Path::new("-") { "standard input".to_owned() } else { self.file.display().to_string() }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().read_to_end(&mut content)
    } else {
        fs::File::open(file).and_then(|mut file| file.read_to_end(&mut content))
    };
    read.map(|_| content).map_err(|error| format!("can't be read: {error}"))
}

fn check(content: &[u8], caller: Option<&Caller>) -> Result<(PolicyFile, Summary), String> {
    let file = PolicyFile::read(content).map_err(|error| error.to_string())?;
    let summary = if IntakeConfig::is_intake_config(&file.json) {
        IntakeConfig::from_json(&file.json).map_err(|error| error.to_string())?;
        Summary::Intake { intake: true }
    } else {
        let policy = Policy::from_json(&file.json).map_err(|error| error.to_string())?;
        Summary::Policy(PolicySummary::of(&policy, file.form, caller))
    };
    Ok((file, summary))
}

/// The summary of a plugin configuration.
#[derive(Serialize)]
#[serde(untagged)]
enum Summary {
    /// An intake's configuration, not a policy.
    Intake {
        intake: bool,
    },
    Policy(PolicySummary),
}

impl Summary {
    /// Returns whether no route takes the requests of the caller in question.
    fn is_refused(&self) -> bool {
        match self {
            Self::Policy(PolicySummary { caller: Some(caller), .. }) => !caller.is_admitted(),
            Self::Policy(_) | Self::Intake { .. } => false,
        }
    }
}

/// The summary of a policy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicySummary {
    /// In order of precedence.
    routes: Vec<RouteSummary>,
    identities: Vec<Identity>,
    unmatched: &'static str,
    /// The caller in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<CallerSummary>,
    /// Valid settings that may not do what the author expects.
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteSummary {
    route: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    /// Absent if the request keeps its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    upstream_tls: bool,
    /// Absent if it is inferred for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    algorithm: &'static str,
    location: &'static str,
    payload: String,
    identity: String,
    allow_unauthenticated_requests: bool,
    /// As in the policy, the most exact first; absent if it admits everyone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    callers: Vec<serde_json::Value>,
    /// The same as text.
    #[serde(skip)]
    caller_names: Vec<String>,
}

impl PolicySummary {
    fn of(policy: &Policy, form: Form, caller: Option<&Caller>) -> Self {
        let routes = policy.routes_by_precedence();
        let mut notes = Vec::new();
        if form == Form::Section {
            notes
                .push("the section proxysigv4 was checked; the file's other keys do not belong to a policy".to_owned());
        }
        if form != Form::Json {
            notes.push("the filter reads JSON; --convert prints this policy as JSON".to_owned());
        }
        notes.extend(routes.iter().filter_map(|route| doubled_slash(route)));
        notes.extend(dropped_buckets(&routes));
        notes.extend(policy.notes());
        Self {
            routes: routes.into_iter().map(|route| RouteSummary::of(route, policy)).collect(),
            identities: policy.identities().to_vec(),
            unmatched: match policy.unmatched {
                Unmatched::Deny => "deny",
                Unmatched::Pass => "pass",
            },
            caller: caller.map(|caller| CallerSummary::new(policy, caller)),
            notes,
        }
    }
}

/// Returns the id of a route's identity; for one of each caller, the role with its placeholders.
fn identity_of<'p>(policy: &'p Policy, route: &'p Route) -> Option<&'p str> {
    match &route.identity {
        RouteIdentity::Fixed(identity) => policy.identities().get(*identity).map(Identity::id),
        RouteIdentity::Caller(template) => Some(&template.role().arn),
    }
}

impl RouteSummary {
    fn of(route: &Route, policy: &Policy) -> Self {
        let identity = identity_of(policy, route);
        let (service, region) = match &route.scope {
            Some(scope) => (Some(scope.service.clone()), Some(scope.region.clone())),
            None => (route.service.clone(), route.region.clone()),
        };
        let (algorithm, region) = match &route.algorithm {
            Algorithm::SigV4 => ("sigv4", region),
            Algorithm::SigV4a { region_set } => ("sigv4a", Some(region_set.clone())),
        };
        let mut callers: Vec<&CallerPattern> = route.callers.iter().collect();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.exactness()));
        Self {
            route: route.name.clone(),
            hosts: route.hosts.iter().map(ToString::to_string).collect(),
            target: route.target.as_ref().map(ToString::to_string),
            upstream_tls: route.upstream_tls,
            service,
            region,
            algorithm,
            location: match route.location {
                SignatureLocation::Header => "header",
                SignatureLocation::Query { .. } if route.redirect => "redirect",
                SignatureLocation::Query { .. } => "query",
            },
            payload: payload(route),
            identity: identity.unwrap_or_default().to_owned(),
            allow_unauthenticated_requests: route.allow_unauthenticated,
            callers: callers.iter().map(|caller| as_written(caller)).collect(),
            caller_names: match callers.is_empty() && !route.siblings.is_empty() {
                true => vec!["everyone else".to_owned()],
                false => callers.iter().map(ToString::to_string).collect(),
            },
        }
    }

    /// Returns the columns of the table.
    fn cells(&self) -> Vec<String> {
        let by_request = "by request";
        let mut signed_for = match (&self.service, &self.region) {
            (None, None) => by_request.to_owned(),
            (service, region) => {
                let part = |part: &Option<String>| part.clone().unwrap_or_else(|| by_request.to_owned());
                format!("{} {}", part(service), part(region))
            }
        };
        for (value, usual) in [(self.algorithm, "sigv4"), (self.location, "header")] {
            if value != usual {
                signed_for = format!("{signed_for}, {value}");
            }
        }
        let open = match (self.callers.is_empty(), self.allow_unauthenticated_requests) {
            (false, _) => "below",
            (true, true) => "anyone",
            (true, false) => "authenticated",
        };
        vec![
            self.route.clone(),
            if self.hosts.is_empty() { "every".to_owned() } else { self.hosts.join(",") },
            self.target.clone().unwrap_or_else(|| {
                (if self.upstream_tls { "as requested" } else { "as requested, without TLS" }).to_owned()
            }),
            signed_for,
            self.payload.clone(),
            self.identity.clone(),
            open.to_owned(),
        ]
    }
}

/// Returns a caller as the policy has it.
fn as_written(caller: &CallerPattern) -> serde_json::Value {
    match caller.token() {
        Some((issuer, claims)) => {
            let claims: serde_json::Map<_, _> =
                claims.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            json!({ "issuer": issuer, "claims": claims })
        }
        None => caller.to_string().into(),
    }
}

/// Returns the route's mode; for `auto` also the mode of a body, if the policy alone decides it.
fn payload(route: &Route) -> String {
    let name = match route.payload {
        PayloadMode::Signed => return "signed".to_owned(),
        PayloadMode::Unsigned => return "unsigned".to_owned(),
        PayloadMode::Envoy => return "envoy".to_owned(),
        PayloadMode::Client => "client",
        PayloadMode::Auto => "auto",
    };
    let Some(scope) = &route.scope else { return name.to_owned() };
    let body = BodyInfo::of_length(&scope.service, route.upstream_tls);
    match PayloadPlan::decide(route.payload, body) {
        Ok(PayloadPlan::Known(PayloadHash::Unsigned)) => format!("{name}: unsigned"),
        _ => format!("{name}: signed"),
    }
}

/// Returns a note if the target ends in a slash and the prefix does not. Such a target is used as written, and rarely
/// intended.
fn doubled_slash(route: &Route) -> Option<String> {
    let target = route.target.as_ref()?;
    let (prefix, path) = (&route.prefix, &target.path);
    (path.ends_with('/') && !prefix.ends_with('/')).then(|| {
        let name = &route.name;
        format!("{name}: {prefix}/x is sent as {path}/x; remove the slash at the target's end if that is not intended")
    })
}

/// Routes to S3 that take hosts which they do not list: their targets drop a bucket that a client puts into the host name.
fn dropped_buckets(routes: &[&Route]) -> Option<String> {
    let goes_to_s3 = |route: &Route| {
        let scope = route.scope.as_ref().map(|scope| scope.service.as_str());
        route.service.as_deref().or(scope).is_some_and(is_s3)
    };
    let open = routes.iter().filter(|route| goes_to_s3(route) && route.may_drop_bucket());
    let names: Vec<&str> = open.map(|route| route.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{}: a bucket that a client puts into the host name is dropped, or refused if it has the form BUCKET.s3.…; list this proxy's names \
             in hosts, and take buckets from \"*.\" before them with {{bucket}} in a target",
            names.join(", ")
        )
    })
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intake { .. } => f.write_str("valid, but not a policy: the configuration of a credential intake"),
            Self::Policy(policy) => policy.fmt(f),
        }
    }
}

impl Display for PolicySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["ROUTE", "HOSTS", "TARGET", "SIGNED FOR", "PAYLOAD", "IDENTITY", "CALLERS"];
        write_table(f, &head, self.routes.iter().map(RouteSummary::cells))?;
        writeln!(f)?;
        let head = ["IDENTITY", "ROLE", "SESSION"];
        let identities = self.identities.iter().map(|identity| {
            let (role, session) = match identity.role() {
                Some(role) => (role.path().collect::<Vec<_>>().join(" then "), session(role)),
                None => ("the refresher's own credentials".to_owned(), String::new()),
            };
            vec![identity.id().to_owned(), role, session]
        });
        write_table(f, &head, identities)?;
        writeln!(f)?;
        let callers = self.routes.iter().flat_map(|route| {
            let cells = |caller: &String| vec![route.route.clone(), caller.clone(), route.identity.clone()];
            route.caller_names.iter().map(cells)
        });
        if callers.clone().next().is_some() {
            write_table(f, &["ROUTE", "CALLER", "IDENTITY"], callers)?;
            writeln!(f)?;
        }
        if let Some(caller) = &self.caller {
            writeln!(f, "{caller}")?;
        }
        f.write_str(match self.unmatched {
            "pass" => "Requests that no route matches pass untouched.\n",
            _ => "Requests that no route matches are answered 404.\n",
        })?;
        self.notes.iter().try_for_each(|note| writeln!(f, "Note: {note}"))
    }
}
