//! What is left over and known by its name: log groups, parameters, roles.

use std::collections::BTreeSet;

use super::Found;
use super::finding::{Class, Finding};
use super::scope::Scope;
use crate::cloud::inventory::{Inventory, tag};

/// Log groups below `/<name>/`, or with our tag, that the state does not know.
pub(super) async fn log_groups(inventory: &Inventory, scope: &Scope) -> Found {
    let prefix = format!("/{}/", scope.name);
    let (named, tagged) = tokio::join!(
        inventory.log_groups(&prefix),
        inventory.tagged("logs", &scope.name)
    );
    let mut names: BTreeSet<_> = named?
        .into_iter()
        .map(|group| group.log_group_name)
        .collect();
    // arn:aws:logs:<region>:<account>:log-group:<name>, on some paths with `:*` at the end.
    let name = |arn: &String| {
        Some(
            arn.split_once(":log-group:")?
                .1
                .trim_end_matches(":*")
                .to_owned(),
        )
    };
    names.extend(tagged?.iter().filter_map(name));
    names.retain(|name| !scope.knows("aws_cloudwatch_log_group", name));
    let describe = |name: &String| {
        let delete = scope.aws(&format!("logs delete-log-group --log-group-name {name}"));
        Finding::new(
            Class::Leftover,
            "log-group",
            name,
            "a log that costs by what it holds",
        )
        .mended_by(delete)
    };
    Ok(names.iter().map(describe).collect())
}

/// SSM parameters below `/<name>/` that the state does not know.
pub(super) async fn parameters(inventory: &Inventory, scope: &Scope) -> Found {
    let parameters = inventory.parameters(&format!("/{}", scope.name)).await?;
    let unknown = parameters
        .iter()
        .filter(|parameter| !scope.knows("aws_ssm_parameter", &parameter.name));
    let describe = |name: &String| {
        let delete = scope.aws(&format!("ssm delete-parameter --name {name}"));
        Finding::new(
            Class::Leftover,
            "parameter",
            name,
            "an SSM parameter of this deployment, perhaps a secret",
        )
        .mended_by(delete)
    };
    Ok(unknown.map(|parameter| describe(&parameter.name)).collect())
}

/// IAM roles `<name>-…` with our tag that the state does not know.
pub(super) async fn roles(inventory: &Inventory, scope: &Scope) -> Found {
    let prefix = format!("{}-", scope.name);
    let mut findings = Vec::new();
    for role in inventory.roles().await? {
        let name = &role.role_name;
        if !name.starts_with(&prefix) || scope.knows("aws_iam_role", name) {
            continue;
        }
        if tag(&inventory.role_tags(name).await?, "Deployment") != Some(&scope.name) {
            continue;
        }
        // Roles belong to no region, and without a state nobody knows where a deployment of this name stands.
        let meaning = if scope.deployment.is_some() {
            "a role of this deployment; its policies and instance profiles go first".to_owned()
        } else {
            format!(
                "a role of {}, which is in use if {} stands in another region: look there before; its policies and instance profiles go first",
                scope.name, scope.name
            )
        };
        let delete = format!("aws iam delete-role --role-name {name}");
        findings.push(Finding::new(Class::Leftover, "role", name, meaning).mended_by(delete));
    }
    Ok(findings)
}
