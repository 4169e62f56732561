// Ascent of one row's bound in its multipliers: slopes of lower lines (alpha) and multipliers of neuron
// splits (beta), as in beta-CROWN (Wang et al. 2021, arXiv:2103.06624). Supergradients are in closed form: the
// minimiser of the current bound is carried forward along the lines that the bound uses. Any multipliers are
// sound, so nothing here needs care about rounding but the lines themselves. Part of the class `Worker`.

struct Candidate {
    int layer, element, neuron;
    double score;
};

struct Split {
    int layer, element, slot;
    double side;
    float beta, first, second, rate;
};

void ascend(int r) {
    const int k = static_cast<int>(all_.size()) - 1;
    const Target target = targets_[r];
    const std::size_t place = static_cast<std::size_t>(item_) * b_.rows + target.tag;
    float *alpha = b_.alpha + place * neurons_, *beta = b_.beta + place * b_.splits;
    const double centre = values_[k].centre[target.element], goal = b_.goal[place] - centre;
    prepare(alpha, beta);
    double best = climb(k, target, alpha, beta, goal, b_.steps, PATIENCE);
    if (!(best > goal) && convex()) best = climb(k, target, alpha, beta, goal, LONGER * b_.steps, LONGER * b_.steps);
    if (!(step_down(centre + best) > b_.value[place])) return adaptive(place);
    restore(alpha, beta);
    descend_row(k, target);
    if (!(step_down(centre + low_[0]) > b_.value[place])) return adaptive(place);  // ReLUs with the same operand
    std::fill_n(b_.input_score + place * b_.inputs, b_.inputs, 0.0);
    b_.neuron_score[place] = -1, b_.best_neuron[place] = -1;
    report(k, target, 0);
    carry_minimizer(k);
    score_minimizer(place);
    look_ahead(k, target, place);
}

// Some steps; keeps the best multipliers and returns their bound, relative to the reference.
double climb(int k, const Target& target, float* alpha, float* beta, double goal, int steps, int patience) {
    double best = -INFINITE, checked = -INFINITE;
    for (int step = 0; step <= steps; ++step) {
        descend_row(k, target);
        if (low_[0] > best) {
            best = low_[0];
            keep(alpha, beta);
        }
        if (best > goal || step == steps) break;
        if (step % patience == patience - 1) {  // give up where progress at this rate would not suffice
            const double left = static_cast<double>(steps - step) / patience;
            if (best + left * (best - checked) < goal) break;
            checked = best;
        }
        carry_minimizer(k);
        move(step);
    }
    return best;
}

// Whether the row uses no upper line: then the best multipliers give its very minimum, no split helps.
bool convex() {
    for (int k = 1; k < static_cast<int>(all_.size()); ++k) {
        if (all_[k].kind != Kind::relu) continue;
        const Value<T>& z = values_[all_[k].source];
        for (int j = 0; j < all_[k].width; ++j)
            if (z.open(j) && coefficient(k, j) < 0) return false;
    }
    return true;
}

// Which neurons loosen the row at its relaxed minimiser: those whose upper line is above the ReLU there. With
// optimal multipliers the lower lines cost nothing: where a ReLU counts positively it is convex in the row, so
// those come last.
void score_minimizer(std::size_t place) {
    candidates_.clear();
    for (int k = 1; k < static_cast<int>(all_.size()); ++k) {
        if (all_[k].kind != Kind::relu) continue;
        const Value<T>&v = values_[k], &z = values_[all_[k].source];
        const T* below = mixes_[all_[k].source].point.get();
        const int offset = all_[all_[k].source].offset;
        for (int j = 0; j < all_[k].width; ++j) {
            if (!z.open(j)) continue;
            const double l = z.lower[j], u = z.upper[j], a = coefficient(k, j);
            const double c = z.centre[j], at = std::min(u, std::max(l, c + below[j])), most = -l * u / (u - l);
            const double line = double(v.upper_slope.get()[j]) * (at - c) + v.upper_gain.get()[j] + std::max(c, 0.0);
            const double loose = line - std::max(at, 0.0) + SPREAD * most;
            const double gap = a < 0 ? -a * loose : CONVEX * (a + 1e-9) * most;
            if (a < 0) candidates_.push_back({k, j, offset + j, gap});
            if (gap > b_.neuron_score[place]) b_.neuron_score[place] = gap, b_.best_neuron[place] = offset + j;
        }
    }
}

// Tries the most promising splits: both children's bounds with the multipliers as they are, one pass each.
// Rewards what refutes one child outright more than what helps both a little.
void look_ahead(int last, const Target& target, std::size_t place) {
    const std::size_t count = std::min<std::size_t>(static_cast<std::size_t>(b_.ahead), candidates_.size());
    if (count < 2) return;
    auto larger = [](const Candidate& x, const Candidate& y) { return x.score > y.score; };
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count), candidates_.end(),
                      larger);
    double top = -INFINITE;
    const double base = b_.value[place] - values_[last].centre[target.element];
    for (std::size_t i = 0; i < count; ++i) {
        const Candidate& c = candidates_[i];
        const double on = with_phase(last, target, c, true) - base, off = with_phase(last, target, c, false) - base;
        const double score = std::min(on, off) + KILL * std::max(on, off);
        if (score > top) top = score, b_.best_neuron[place] = c.neuron, b_.neuron_score[place] = c.score;
    }
}

// The row's bound if one neuron, whose upper line it uses, had only one phase.
double with_phase(int last, const Target& target, const Candidate& c, bool active) {
    Value<T>& v = values_[c.layer];
    const double at = values_[all_[c.layer].source].centre[c.element];
    T &slope = v.upper_slope.get()[c.element], &gain = v.upper_gain.get()[c.element];
    const T before_slope = slope, before_gain = gain;
    slope = active ? T(1) : T(0);
    gain = static_cast<T>(active ? std::min(at, 0.0) : -std::max(at, 0.0));
    descend_row(last, target);
    slope = before_slope, gain = before_gain;
    return low_[0];
}

// The multipliers of a row that was bounded with adaptive slopes.
void adaptive(std::size_t place) {
    for (int k = 1; k < static_cast<int>(all_.size()); ++k)
        for (int j = 0; all_[k].kind == Kind::relu && j < all_[k].width; ++j)
            b_.alpha[place * neurons_ + all_[all_[k].source].offset + j] =
                static_cast<float>(values_[k].lower_slope.get()[j]);
    std::fill_n(b_.beta + place * b_.splits, b_.splits, 0.0f);
}

void keep(float* alpha, float* beta) {
    for (int k = 1; k < static_cast<int>(all_.size()); ++k)
        if (all_[k].kind == Kind::relu)
            std::copy(mixes_[k].alpha.begin(), mixes_[k].alpha.end(), alpha + all_[all_[k].source].offset);
    for (const Split& s : splits_) beta[s.slot] = s.beta;
}

void restore(const float* alpha, const float* beta) {
    for (int k = 1; k < static_cast<int>(all_.size()); ++k)
        if (all_[k].kind == Kind::relu)
            std::copy_n(alpha + all_[all_[k].source].offset, all_[k].width, mixes_[k].alpha.begin());
    for (Split& s : splits_) s.beta = beta[s.slot];
    set_lines();
}

// Multipliers from the caller's, or the adaptive ones; no momentum.
void prepare(float* alpha, float* beta) {
    mixes_.resize(all_.size());
    for (int k = 1; k < static_cast<int>(all_.size()); ++k) {
        Mix<T>& m = mixes_[k];
        m.point.resize(static_cast<std::size_t>(all_[k].stride));
        if (all_[k].kind != Kind::relu) continue;
        const auto width = static_cast<std::size_t>(all_[k].width), stride = static_cast<std::size_t>(all_[k].stride);
        m.slope.resize(stride), m.gain.resize(stride);
        m.alpha.resize(width), m.first.assign(width, 0.0f), m.second.assign(width, 0.0f);
        float* start = alpha + all_[all_[k].source].offset;
        for (std::size_t j = 0; j < width; ++j) {
            const float given =
                start[j] >= 0 && start[j] <= 1 ? start[j] : static_cast<float>(values_[k].lower_slope.get()[j]);
            start[j] = m.alpha[j] = given;
        }
    }
    mixes_[0].point.resize(static_cast<std::size_t>(all_[0].stride));
    splits_.clear();
    for (int s = 0; s < b_.splits; ++s) {
        const std::size_t at = static_cast<std::size_t>(item_) * b_.splits + s;
        if (!(beta[s] >= 0 && beta[s] < MOST_BETA) || b_.split[at] < 0) beta[s] = 0;
        if (b_.split[at] < 0) continue;
        int layer = 0;
        for (int k = 1; k < static_cast<int>(all_.size()); ++k)
            if (all_[k].offset >= 0 && b_.split[at] >= all_[k].offset && b_.split[at] < all_[k].offset + all_[k].width)
                layer = k;
        splits_.push_back(
            {layer, b_.split[at] - all_[layer].offset, s, double(b_.side[at]), beta[s], 0.0f, 0.0f, 0.0f});
    }
    set_lines();
}

// The lower lines of the current alpha.
void set_lines() {
    for (int k = 1; k < static_cast<int>(all_.size()); ++k) {
        if (all_[k].kind != Kind::relu) continue;
        Mix<T>& m = mixes_[k];
        const Value<T>&v = values_[k], &z = values_[all_[k].source];
        for (int j = 0; j < all_[k].width; ++j) {
            const bool open = z.open(j);
            m.slope.get()[j] = open ? static_cast<T>(m.alpha[j]) : v.lower_slope.get()[j];
            const double c = z.centre[j], at = std::max(c, 0.0), height = double(m.alpha[j]) * c;
            m.gain.get()[j] =
                open ? gain_down(height - at - 0x1p-50 * (std::fabs(height) + at)) : v.lower_gain.get()[j];
        }
    }
}

// One row with the current multipliers.
void descend_row(int k, const Target& target) { rows_below(k, &target, 1, -1, true); }

void add_splits(int layer) {
    for (const Split& s : splits_)
        if (s.layer == layer && s.beta > 0) add_split(s);
}

// `-beta side z` is not positive where the split holds. A neuron may be split several times, so that sums of
// its terms cancel: what rounding them loses is charged to each.
void add_split(const Split& s) {
    const Value<T>& z = values_[s.layer];
    activate(s.layer);
    touch(s.layer, s.element / PADDING, 1);
    const double term = -double(s.beta) * s.side, value = term * z.centre[s.element];
    row(s.layer, 0)[s.element] += static_cast<T>(term);
    constant_[0] += value, size_[0] += 2 * std::fabs(value);
    loss_[0] += gamma_of(static_cast<double>(splits_.size()) + 4, unit<T>()) * std::fabs(term) *
                double(z.size.get()[s.element]);
}

// The corner at which the row is least, and all values there along the lines in use, as deviations.
void carry_minimizer(int last) {
    const Value<T>& x = values_[0];
    for (int j = 0; j < b_.inputs; ++j)
        mixes_[0].point.get()[j] =
            static_cast<T>(row(0, 0)[j] > 0 ? x.lower[j] - x.centre[j] : x.upper[j] - x.centre[j]);
    for (int k = 1; k < last; ++k) {
        T* point = mixes_[k].point.get();
        if (all_[k].kind == Kind::affine) {
            std::fill_n(point, all_[k].stride, T(0));
            for (const Matrix<T>& m : all_[k].blocks) carry(m, mixes_[m.source].point.get(), point);
            continue;
        }
        const Value<T>& v = values_[k];
        const T* below = mixes_[all_[k].source].point.get();
        for (int j = 0; j < all_[k].width; ++j) {
            const bool up = coefficient(k, j) < 0;
            point[j] = below[j] * (up ? v.upper_slope.get()[j] : mixes_[k].slope.get()[j]) +
                       (up ? v.upper_gain.get()[j] : mixes_[k].gain.get()[j]);
        }
    }
}

// On one element of a node in the last pass.
T coefficient(int k, int j) { return !mixes_[k].used.empty() && mixes_[k].used[j / PADDING] ? row(k, 0)[j] : T(0); }

static void carry(const Matrix<T>& m, const T* x, T* y) {
    if (m.sparse) {
        for (int i = 0; i < m.rows; ++i)
            for (int q = m.start[i]; q < m.start[i + 1]; ++q) y[i] += m.value[q] * x[m.column[q]];
        return;
    }
    for (int j = 0; j < m.cols; ++j) {
        if (x[j] == 0) continue;
        const T* w = m.turned.get() + static_cast<std::size_t>(j) * m.ldt;
        for (int i = 0; i < m.ldt; i += L) store<T>(y + i, load<T>(y + i) + load<T>(w + i) * x[j]);
    }
}

// One step of Adam (Kingma and Ba 2015, algorithm 1).
void move(int step) {
    const double rate = std::pow(DECAY, step);
    first_bias_ = 1 - std::pow(0.9, step + 1), second_bias_ = 1 - std::pow(0.999, step + 1);
    for (int k = 1; k < static_cast<int>(all_.size()); ++k) {
        if (all_[k].kind != Kind::relu || mixes_[k].used.empty()) continue;
        Mix<T>& m = mixes_[k];
        const Value<T>& z = values_[all_[k].source];
        for (int j = 0; j < all_[k].width; ++j) {
            if (!z.open(j)) continue;
            const double a = coefficient(k, j), value = z.centre[j] + mixes_[all_[k].source].point.get()[j];
            const double moved =
                m.alpha[j] + rate * ALPHA_RATE * adam(a > 0 ? a * value : 0.0, m.first[j], m.second[j]);
            m.alpha[j] = static_cast<float>(std::min(1.0, std::max(0.0, moved)));
        }
    }
    for (Split& s : splits_) {
        const double value = values_[s.layer].centre[s.element] + mixes_[s.layer].point.get()[s.element];
        if (s.rate == 0) s.rate = static_cast<float>(BETA_RATE * (largest_coefficient(s.layer) + 1e-9));
        const double moved = s.beta + rate * s.rate * adam(-s.side * value, s.first, s.second);
        s.beta = static_cast<float>(std::max(0.0, moved));
    }
    set_lines();
}

double adam(double gradient, float& first, float& second) const {
    if (!std::isfinite(gradient)) gradient = 0;
    first = static_cast<float>(0.9 * first + 0.1 * gradient);
    second = static_cast<float>(0.999 * second + 0.001 * gradient * gradient);
    return first / first_bias_ / (std::sqrt(second / second_bias_) + 1e-12);
}

// The scale on which multipliers of splits of a layer matter.
double largest_coefficient(int layer) {
    double most = 0;
    for (int k = layer + 1; k < static_cast<int>(all_.size()); ++k)
        for (int j = 0; all_[k].kind == Kind::relu && all_[k].source == layer && j < all_[k].width; ++j)
            most = std::max(most, std::fabs(double(coefficient(k, j))));
    return most;
}

static constexpr int PATIENCE = 5, LONGER = 10;
static constexpr float MOST_BETA = 1e30f;
static constexpr double SPREAD = 0.5;   // of the largest gap of a ReLU, beside the one at the minimiser
static constexpr double KILL = 4.0;     // weight of the child that gains more
static constexpr double CONVEX = 1e-6;  // of the gap of ReLUs that count positively
static constexpr double ALPHA_RATE = 0.25, BETA_RATE = 0.2, DECAY = 0.96;
std::vector<Split> splits_;
std::vector<Candidate> candidates_;
double first_bias_ = 1, second_bias_ = 1;
