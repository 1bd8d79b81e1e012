//! The NAT gateway taken away as blog posts do it, with `terraform destroy -target`, and as Drawbridge does it: what
//! goes, and what the next plan wants back. The README quotes the table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use serde_json::json;

use super::ADMIN_KEY;
use crate::support::{Emulator, Stack, repository};

/// What the way out itself consists of, in one shape or another. Only this has to go.
const WINDOW: [&str; 6] = [
    "aws_eip.nat",
    "aws_nat_gateway.main",
    "aws_nat_gateway.nat",
    "aws_route.private",
    "aws_route.private_internet",
    "aws_scheduler_schedule.nat_deadline",
];

/// What one way of closing did.
struct Measured {
    resources: usize,
    gone: BTreeSet<String>,
    /// What the next plan wants: `("create", "aws_eip.nat")`.
    wanted: Vec<(String, String)>,
}

impl Measured {
    fn close(stack: &Stack, close: impl FnOnce(&Stack)) -> Self {
        stack.apply();
        assert_eq!(stack.plan(), [], "the plan after an apply is empty");
        let before = stack.resources();
        close(stack);
        let after = stack.resources();
        Self {
            resources: before.len(),
            gone: before.difference(&after).cloned().collect(),
            wanted: stack.plan(),
        }
    }

    /// What went though it is not part of the way out.
    fn besides(&self) -> Vec<&str> {
        let is_window = |address: &str| WINDOW.contains(&address.trim_end_matches("[0]"));
        let gone = self.gone.iter().map(String::as_str);
        gone.filter(|address| !is_window(address)).collect()
    }

    fn wants(&self, action: &str) -> usize {
        // A replacement is written `delete+create`.
        let actions = self.wanted.iter().map(|(actions, _)| actions);
        actions
            .filter(|actions| actions.split('+').any(|one| one == action))
            .count()
    }

    fn wants_back(&self, kind: &str) -> bool {
        let is_it =
            |(action, address): &(String, String)| action == "create" && address.starts_with(kind);
        self.wanted.iter().any(is_it)
    }

    fn row(&self, way: &str) -> String {
        let besides: Vec<_> = self
            .besides()
            .iter()
            .map(|address| format!("`{address}`"))
            .collect();
        format!(
            "| {way} | {} | {} | {} | {} to add, {} to change, {} to destroy | {} |",
            self.resources,
            self.gone.len(),
            if besides.is_empty() {
                "nothing".to_owned()
            } else {
                besides.join(", ")
            },
            self.wants("create"),
            self.wants("update"),
            self.wants("delete"),
            if self.wants_back("aws_nat_gateway.") {
                "yes"
            } else {
                "no"
            },
        )
    }
}

/// The blog post's stack, with its routes from this file, closed its way.
fn the_posts_way(emulator: &Emulator, image: &str, name: &str, routes: &str) -> Measured {
    let folder = Path::new("tests/terraform/blog_post");
    let files = [folder.join("main.tf"), folder.join(routes)];
    let variables = json!({"name": name, "image": image});
    let stack = Stack::of(emulator, &[&files[0], &files[1]], &variables);
    Measured::close(&stack, |stack| {
        stack
            .terraform(&[
                "destroy",
                "-auto-approve",
                "-target=aws_nat_gateway.nat",
                "-target=aws_eip.nat",
            ])
            .expect_success("terraform destroy -target");
    })
}

fn our_way(emulator: &Emulator) -> Measured {
    Measured::close(&Stack::new(emulator, ADMIN_KEY), |stack| {
        stack.write("nat.auto.tfvars.json", r#"{"nat_gateway": false}"#);
        stack.apply();
    })
}

#[test]
fn closing_by_the_variable_takes_the_window_only_and_leaves_an_empty_plan_and_target_does_not() {
    let emulator = Emulator::start();
    let image = emulator.image("post");
    // Side by side: each spends most of its time in the provider's own waits.
    let (inline, separate, ours) = thread::scope(|scope| {
        let inline = scope.spawn(|| the_posts_way(&emulator, &image, "post", "routes_inline.tf"));
        let separate =
            scope.spawn(|| the_posts_way(&emulator, &image, "separate", "routes_separate.tf"));
        let ours = scope.spawn(|| our_way(&emulator));
        let measured = [inline, separate, ours].map(|way| way.join().expect("a way of closing"));
        measured.into()
    });
    let table = [
        "| closed by | of resources | destroyed | besides the way out itself | the next plan | NAT gateway comes back |",
        "|---|---|---|---|---|---|",
        &inline.row("`-target`, routes inline"),
        &separate.row("`-target`, a route of its own"),
        &ours.row("Drawbridge, `nat_gateway = false`"),
    ]
    .join("\n");
    println!("{table}");

    assert_eq!(
        inline.besides(),
        [
            "aws_route_table.private",
            "aws_route_table_association.backend",
            "aws_route_table_association.database",
            "aws_vpc_endpoint.s3",
        ]
    );
    assert_eq!(separate.besides(), Vec::<&str>::new());
    for post in [&inline, &separate] {
        // All that went comes back with the next apply of anything, the gateway and its bill first of all.
        let wanted: BTreeSet<_> = post
            .wanted
            .iter()
            .map(|(_, address)| address.clone())
            .collect();
        assert_eq!(wanted, post.gone);
        assert!(post.wants_back("aws_nat_gateway.nat") && post.wants_back("aws_eip.nat"));
    }
    assert_eq!(
        ours.gone.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "aws_eip.nat[0]",
            "aws_nat_gateway.main[0]",
            "aws_route.private_internet[0]",
            "aws_scheduler_schedule.nat_deadline[0]",
        ]
    );
    assert_eq!(ours.wanted, []);
    assert_eq!(
        quoted(),
        table,
        "README.md quotes other numbers than those measured:\n{table}"
    );
}

/// The table that the README has between its markers.
fn quoted() -> String {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let (begin, end) = ("<!-- measured: blog-post -->", "<!-- /measured -->");
    let (_, rest) = readme
        .split_once(begin)
        .expect("the marker that begins the table");
    let (table, _) = rest
        .split_once(end)
        .expect("the marker that ends the table");
    table
        .trim()
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
}
