//! Which experts a token goes to, and how much each of them counts.

use crate::mlx::config::{Groups, Routing};

/// The `chosen` likeliest experts of one token, best first and of equals the first, with their weights. `favour` is added to the
/// scores of a [`Routing::Sigmoid`] for the choice alone.
pub fn route(routing: Routing, logits: &[f32], favour: Option<&[f32]>, chosen: usize) -> Vec<(usize, f32)> {
    match routing {
        Routing::SoftmaxThenTop { groups, normalized, factor } => {
            softmax(groups, logits, chosen, !normalized)
                .map(|(expert, weight)| (expert, weight * factor))
                .collect()
        }
        Routing::TopThenSoftmax => softmax(Groups::ONE, logits, chosen, false).collect(),
        Routing::Sigmoid { groups, normalized, factor } => {
            let scores: Vec<f32> = logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect();
            let favoured = |(i, score): (usize, &f32)| score + favour.map_or(0.0, |favour| favour[i]);
            let mut ranks: Vec<f32> = scores.iter().enumerate().map(favoured).collect();
            keep_best_groups(groups, &mut ranks);
            let best = best(&ranks, chosen);
            let sum: f32 = best.iter().map(|&expert| scores[expert]).sum();
            let over = if normalized && chosen > 1 { sum } else { 1.0 };
            best.into_iter().map(|expert| (expert, scores[expert] / over * factor)).collect()
        }
    }
}

/// The `count` greatest, greatest first. A stable sort: equals stay in order.
fn best(ranks: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by(|&a, &b| ranks[b].total_cmp(&ranks[a]));
    order.truncate(count);
    order
}

/// The best experts of the best groups and their softmax, over all experts or over these.
fn softmax(
    groups: Groups,
    logits: &[f32],
    chosen: usize,
    over_all: bool,
) -> impl Iterator<Item = (usize, f32)> {
    let order = best(logits, logits.len());
    let greatest = order.first().map_or(0.0, |&first| logits[first]);
    let mut ranks: Vec<f32> = logits.iter().map(|logit| (logit - greatest).exp()).collect();
    let weights = ranks.clone();
    let chosen = if groups.count > 1 {
        keep_best_groups(groups, &mut ranks);
        best(&ranks, chosen)
    } else {
        // By logits: weights far below the greatest are all 0.
        order[..chosen.min(order.len())].to_vec()
    };
    let sum: f32 = if over_all { &order } else { &chosen }.iter().map(|&expert| weights[expert]).sum();
    chosen.into_iter().map(move |expert| (expert, weights[expert] / sum))
}

/// Sets the ranks of all but the groups whose best have the greatest sums to 0.
fn keep_best_groups(groups: Groups, ranks: &mut [f32]) {
    if groups.count < 2 {
        return;
    }
    let size = ranks.len() / groups.count;
    let judged = |group: &[f32]| best(group, groups.judged_by).into_iter().map(|i| group[i]).sum::<f32>();
    let sums: Vec<f32> = ranks.chunks_exact(size).map(judged).collect();
    for group in best(&sums, sums.len()).into_iter().skip(groups.chosen) {
        ranks[group * size..][..size].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: Vec<(usize, f32)>, expected: &[(usize, f32)]) {
        assert_eq!(found.len(), expected.len());
        for ((a, x), (b, y)) in found.into_iter().zip(expected) {
            assert!(a == *b && (x - y).abs() < 1e-6, "{a}: {x}, expected {b}: {y}");
        }
    }

    #[test]
    fn the_best_are_chosen_and_weigh_what_the_family_says() {
        let logits = [0.0, 2.0_f32.ln(), 3.0_f32.ln(), 4.0_f32.ln()];
        let by_groups = |groups, normalized, factor| Routing::SoftmaxThenTop { groups, normalized, factor };
        let all = by_groups(Groups::ONE, false, 1.0);
        close(route(all, &logits, None, 2), &[(3, 0.4), (2, 0.3)]);
        let renormalized = by_groups(Groups::ONE, true, 1.0);
        close(route(renormalized, &logits, None, 2), &[(3, 4.0 / 7.0), (2, 3.0 / 7.0)]);
        close(route(Routing::TopThenSoftmax, &logits, None, 1), &[(3, 1.0)]);
        // The first group has the best expert, the second the best two.
        let logits = [1.0, 5.0, 4.0, 3.0].map(f32::ln);
        let pairs = |judged_by| Groups { count: 2, chosen: 1, judged_by };
        close(route(by_groups(pairs(1), false, 2.6), &logits, None, 2), &[(1, 1.0), (0, 0.2)]);
        close(route(by_groups(pairs(2), true, 1.0), &logits, None, 2), &[(2, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        close(route(Routing::TopThenSoftmax, &[1.0, 1.0, 1.0], None, 2), &[(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn favour_decides_the_choice_and_not_the_weight_and_groups_come_first() {
        // Scores 1/2, 2/3, 3/4, 4/5.
        let logits = [0.0, 2.0_f32.ln(), 3.0_f32.ln(), 4.0_f32.ln()];
        let sigmoid = |count, chosen, normalized| Routing::Sigmoid {
            groups: Groups { count, chosen, judged_by: 2 },
            normalized,
            factor: 2.0,
        };
        close(route(sigmoid(1, 1, false), &logits, Some(&[1.0, 0.0, 0.0, 0.0]), 2), &[(0, 1.0), (3, 1.6)]);
        close(route(sigmoid(1, 1, true), &logits, None, 2), &[(3, 2.0 * 0.8 / 1.55), (2, 2.0 * 0.75 / 1.55)]);
        close(
            route(sigmoid(2, 1, false), &logits, Some(&[0.5, 0.5, 0.0, 0.0]), 2),
            &[(1, 4.0 / 3.0), (0, 1.0)],
        );
    }
}
