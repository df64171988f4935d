//! `divvy quota|weights`: what roles are promised, what they may not exceed, how much they weigh.

use divvy_proto::role::RolePath;
use divvy_proto::{Amounts, Quota, api};
use divvy_sdk::cli::{CliError, Context, table};
use reqwest::Method;
use serde_json::json;

use super::done;
use crate::cli::{QuotaAction, SetQuota, WeightAction};

pub(super) async fn quota(context: &Context, action: Option<QuotaAction>) -> Result<(), CliError> {
    match action {
        None | Some(QuotaAction::Get { role: None }) => {
            let quotas: Vec<api::RoleQuota> = context.get("/api/v1/quotas").await?;
            context.print(&quotas, |quotas| show_quotas(quotas))
        }
        Some(QuotaAction::Get { role: Some(role) }) => {
            let quota: api::RoleQuota = context.get(&format!("/api/v1/quotas/{}", path(&role))).await?;
            context.print(&quota, |quota| show_quotas(std::slice::from_ref(quota)))
        }
        Some(QuotaAction::Set(options)) => set_quota(context, options).await,
        Some(QuotaAction::Rm { role }) => {
            let request = context.request(Method::DELETE, &format!("/api/v1/quotas/{}", path(&role)));
            context.send(request).await?;
            done(
                context,
                &json!({ "role": role, "quota": null }),
                format_args!("{role} has no quota any more"),
            )
        }
    }
}

async fn set_quota(context: &Context, options: SetQuota) -> Result<(), CliError> {
    let SetQuota { role, guarantee, limit, shape, no_preempt, force } = options;
    let quota = Quota {
        guarantee: guarantee.unwrap_or_default(),
        limit: limit.unwrap_or_default(),
        shape,
        preemptible: !no_preempt,
    };
    quota.check().map_err(|invalid| CliError::Usage(invalid.to_string()))?;
    let request = context.request(Method::PUT, &format!("/api/v1/quotas/{}?force={force}", path(&role)));
    context.send(request.json(&quota)).await?;
    let said = |what: &str, amounts: &Amounts| match amounts.is_empty() {
        true => format!("{what} nothing"),
        false => format!("{what} {amounts}"),
    };
    let text = format!(
        "{role} is {}, {}",
        said("guaranteed", &quota.guarantee),
        said("limited to", &quota.limit).replace("limited to nothing", "not limited")
    );
    done(context, &json!({ "role": role, "quota": quota }), text)
}

fn show_quotas(quotas: &[api::RoleQuota]) -> String {
    table(
        ["ROLE", "GUARANTEE", "LIMIT", "CONSUMED", "SHAPE", "PREEMPTIBLE"],
        quotas.iter().map(|api::RoleQuota { role, quota, consumed }| {
            [
                role.to_string(),
                quota.guarantee.to_string(),
                quota.limit.to_string(),
                consumed.to_string(),
                quota.shape.as_ref().map(ToString::to_string).unwrap_or_default(),
                if quota.preemptible { "yes" } else { "no" }.to_owned(),
            ]
        }),
    )
}

pub(super) async fn weights(context: &Context, action: Option<WeightAction>) -> Result<(), CliError> {
    let show = |weights: &[api::RoleWeight]| {
        let rows = weights.iter().map(|found| [found.role.to_string(), found.weight.to_string()]);
        table(["ROLE", "WEIGHT"], rows)
    };
    match action {
        None | Some(WeightAction::Get { role: None }) => {
            let weights: Vec<api::RoleWeight> = context.get("/api/v1/weights").await?;
            context.print(&weights, |weights| show(weights))
        }
        Some(WeightAction::Get { role: Some(role) }) => {
            let weight: api::RoleWeight = context.get(&format!("/api/v1/weights/{}", path(&role))).await?;
            context.print(&weight, |weight| show(std::slice::from_ref(weight)))
        }
        Some(WeightAction::Set { role, weight }) => {
            let request = context.request(Method::PUT, &format!("/api/v1/weights/{}", path(&role)));
            context.send(request.json(&api::SetWeight { weight })).await?;
            done(context, &json!({ "role": role, "weight": weight }), format_args!("{role} weighs {weight}"))
        }
        Some(WeightAction::Rm { role }) => {
            let request = context.request(Method::DELETE, &format!("/api/v1/weights/{}", path(&role)));
            context.send(request).await?;
            done(
                context,
                &json!({ "role": role, "weight": 1 }),
                format_args!("{role} has the default weight"),
            )
        }
    }
}

/// A role as part of a URL's path: what would end the path or mean something in it is escaped.
fn path(role: &RolePath) -> String {
    super::escaped(role.as_str(), b"/")
}
