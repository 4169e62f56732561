// The way up: reference runs, boxes, lines of ReLUs, and the targets of backward rows. Part of the class `Worker`.

bool start() {
    Value<T>& v = values_[0];
    const std::size_t base = static_cast<std::size_t>(item_) * b_.inputs;
    for (int j = 0; j < b_.inputs; ++j) {
        v.lower[j] = b_.lower[base + j], v.upper[j] = b_.upper[base + j];
        v.centre[j] = 0.5 * v.lower[j] + 0.5 * v.upper[j];
        if (!(v.lower[j] <= v.upper[j])) return false;
    }
    slack_ = 0;
    describe(0);
    finish_cost(0);
    return true;
}

// The box around the centre in type T, rounded outward.
void describe(int k) {
    Value<T>& v = values_[k];
    double loss = 0;
    for (int j = 0; j < all_[k].width; ++j) {
        const double c = v.centre[j], below = v.lower[j] - c, above = v.upper[j] - c;
        const T down = below == 0 ? T(0) : cast_down<T>(step_down(below));
        const T up = above == 0 ? T(0) : cast_up<T>(step_up(above));
        const T size = std::max(-down, up);
        T middle = T(0.5) * down + T(0.5) * up;
        double radius = std::max(step_up(double(up) - middle), step_up(double(middle) - down));
        if (!(size < std::numeric_limits<T>::max())) middle = 0, radius = INFINITE;
        if (down == up && down == 0) radius = 0;
        v.middle.get()[j] = middle, v.radius.get()[j] = radius == 0 ? T(0) : cast_up<T>(radius);
        v.size.get()[j] = size, v.magnitude.get()[j] = c == 0 ? T(0) : cast_up<T>(std::fabs(c));
        loss += double(size) * terms_[k] + 8;
    }
    slack_ += loss * (smallest<T>() * 1.01);
}

// Additions of coefficients on this value, and the product with a line's slope before it.
void finish_cost(int k) {
    Value<T>& v = values_[k];
    const double factor = (all_[k].consumers + 3) * unit<T>();
    const bool affine = all_[k].kind == Kind::affine;
    for (int j = 0; j < all_[k].width; ++j)
        v.cost.get()[j] = cast_up<T>((double(v.size.get()[j]) * factor + (affine ? v.base_cost[j] : 0)) * (1 + 1e-9));
}

bool affine(int k) {
    const Layer<T>& layer = all_[k];
    Value<T>& v = values_[k];
    forward(layer);
    const double infl = inflation<T>(layer.inputs), exact = gamma_of(layer.inputs + 4, DOUBLE) + layer.weight_error;
    const double relative = layer.weight_error + unit<T>() * 1.01;
    const double across = gamma_of(layer.inputs + 4, unit<T>()) + relative;
    const double back = gamma_of(most_terms(layer), unit<T>()) + relative;
    for (int i = 0; i < layer.width; ++i) {
        const double size = dev_.get()[i] * infl, bias = layer.bias[i];
        const double magnitude = mag_.get()[i] * infl + layer.lost * sum_magnitude_ + std::fabs(bias);
        const double error = exact * magnitude * (1 + 1e-9) + layer.bias_error[i] + layer.inputs * UNDERFLOW;
        const double lost = layer.lost * sum_size_ + layer.inputs * smallest<T>() * 4;
        const double reach = (rad_.get()[i] * infl + across * size + lost + error) * (1 + 1e-9);
        v.centre[i] = std::isfinite(exact_.get()[i] + bias) ? exact_.get()[i] + bias : 0;
        const double off = v.centre[i] == exact_.get()[i] + bias ? 0 : INFINITE;
        v.base_cost[i] = (back * size + lost + error + off) * (1 + 1e-9);
        v.lower[i] = step_down(v.centre[i] + step_down(mid_.get()[i] - reach - off));
        v.upper[i] = step_up(v.centre[i] + step_up(mid_.get()[i] + reach + off));
        if (is_nan(v.lower[i])) v.lower[i] = -INFINITE;
        if (is_nan(v.upper[i])) v.upper[i] = INFINITE;
    }
    if (layer.offset >= 0 && !(meet_known(k) && refine(k))) return false;
    describe(k);
    finish_cost(k);
    choose_all(k);
    return true;
}

// Of the sums that make the coefficients on its operands, its other consumers' parts included.
double most_terms(const Layer<T>& layer) const {
    double most = 0;
    for (const auto& block : layer.blocks) most = std::max(most, terms_[block.source]);
    return most;
}

// Reference run, and middle, radius, size and magnitude carried through the weights; no bias yet.
void forward(const Layer<T>& layer) {
    for (auto* a : {&mid_, &rad_, &dev_, &mag_}) std::fill_n(a->get(), layer.stride, T(0));
    std::fill_n(exact_.get(), layer.stride, 0.0);
    sum_size_ = sum_magnitude_ = 0;
    for (const Matrix<T>& m : layer.blocks) {
        const Value<T>& x = values_[m.source];
        if (layer.lost > 0)
            for (int j = 0; j < m.cols; ++j)
                sum_size_ += x.size.get()[j] * 1.001, sum_magnitude_ += x.magnitude.get()[j] * 1.001;
        if (m.sparse)
            forward_sparse(m, x);
        else
            forward_dense(m, x);
    }
}

void forward_dense(const Matrix<T>& m, const Value<T>& x) {
    for (int j = 0; j < m.cols; ++j) {
        const T middle = x.middle.get()[j], radius = x.radius.get()[j], size = x.size.get()[j];
        const T magnitude = x.magnitude.get()[j];
        if (size == 0 && magnitude == 0) continue;
        const T* w = m.turned.get() + static_cast<std::size_t>(j) * m.ldt;
        const double* e = m.exact_turned.get() + static_cast<std::size_t>(j) * m.ldt;
        const double c = x.centre[j];
        for (int i = 0; i < m.ldt; ++i) exact_.get()[i] += e[i] * c;
        for (int i = 0; i < m.ldt; i += L) {
            const V row = load<T>(w + i), positive = absolute<T>(row);
            store<T>(mid_.get() + i, load<T>(mid_.get() + i) + row * middle);
            store<T>(rad_.get() + i, load<T>(rad_.get() + i) + positive * radius);
            store<T>(dev_.get() + i, load<T>(dev_.get() + i) + positive * size);
            store<T>(mag_.get() + i, load<T>(mag_.get() + i) + positive * magnitude);
        }
    }
}

void forward_sparse(const Matrix<T>& m, const Value<T>& x) {
    for (int i = 0; i < m.rows; ++i)
        for (int q = m.start[i]; q < m.start[i + 1]; ++q) {
            const int j = m.column[q];
            const T w = m.value[q], positive = std::fabs(w);
            exact_.get()[i] += m.exact[q] * x.centre[j];
            mid_.get()[i] += w * x.middle.get()[j], rad_.get()[i] += positive * x.radius.get()[j];
            dev_.get()[i] += positive * x.size.get()[j], mag_.get()[i] += positive * x.magnitude.get()[j];
        }
}

// Intersects the box with what is known; false if nothing is left.
bool meet_known(int k) {
    Value<T>& v = values_[k];
    const std::size_t base = static_cast<std::size_t>(item_) * neurons_ + all_[k].offset;
    for (int j = 0; j < all_[k].width; ++j) {
        v.lower[j] = std::max(v.lower[j], b_.known_lower[base + j]);
        v.upper[j] = std::min(v.upper[j], b_.known_upper[base + j]);
        if (v.lower[j] > v.upper[j]) return false;
    }
    return true;
}

// Rows for the neurons that are still unstable and for those that are split.
bool refine(int k) {
    Value<T>& v = values_[k];
    const int offset = all_[k].offset;
    const std::size_t base = static_cast<std::size_t>(item_) * neurons_ + offset;
    targets_.clear();
    for (int j = 0; j < all_[k].width; ++j) {
        if (!v.open(j)) continue;
        double* share = share_.data() + static_cast<std::size_t>(offset + j) * b_.inputs;
        std::fill_n(share, b_.inputs, 0.0);
        if (direct(all_[k])) {  // its interval is exact
            add_share(all_[k].blocks[0], j, share);
            continue;
        }
        if (!b_.refine) continue;
        targets_.push_back({j, 1.0, -1});
        targets_.push_back({j, -1.0, -1});
    }
    for (int s = 0; s < std::min(b_.splits, b_.cuts); ++s) {
        const std::size_t place = static_cast<std::size_t>(item_) * b_.splits + s;
        const int neuron = b_.split[place];
        if (neuron < offset || neuron >= offset + all_[k].width) continue;
        targets_.push_back({neuron - offset, b_.side[place] > 0 ? -1.0 : 1.0, s});
    }
    for (std::size_t first = 0; first < targets_.size(); first += capacity_) {
        const int count = static_cast<int>(std::min<std::size_t>(capacity_, targets_.size() - first));
        const Target* t = targets_.data() + first;
        rows_below(k, t, count);
        for (int r = 0; r < count; ++r) use_row(k, t[r], r);
    }
    for (int j = 0; j < all_[k].width; ++j) {
        if (v.lower[j] > v.upper[j]) return false;
        b_.known_lower[base + j] = v.lower[j], b_.known_upper[base + j] = v.upper[j];
    }
    return true;
}

// Whether a layer reads the inputs themselves, and nothing else.
static bool direct(const Layer<T>& layer) { return layer.blocks.size() == 1 && layer.blocks[0].source == 0; }

void add_share(const Matrix<T>& m, int row, double* share) const {
    const Value<T>& x = values_[0];
    auto add = [&](int j, double w) { share[j] += std::fabs(w) * (x.upper[j] - x.lower[j]); };
    if (m.sparse)
        for (int q = m.start[row]; q < m.start[row + 1]; ++q) add(m.column[q], m.exact[q]);
    else
        for (int j = 0; j < m.cols; ++j) add(j, m.weight.get()[static_cast<std::size_t>(row) * m.ld + j]);
}

void use_row(int k, const Target& t, int r) {
    Value<T>& v = values_[k];
    const double c = v.centre[t.element];
    if (t.tag >= 0) {
        const std::size_t place = static_cast<std::size_t>(item_) * b_.splits + t.tag;
        b_.split_height[place] = absolute_row(r, t.sign * c, b_.split_slope + place * b_.inputs);
        return;
    }
    if (t.sign > 0)
        v.lower[t.element] = std::max(v.lower[t.element], step_down(c + low_[r]));
    else
        v.upper[t.element] = std::min(v.upper[t.element], step_up(c - low_[r]));
    double* share = share_.data() + static_cast<std::size_t>(all_[k].offset + t.element) * b_.inputs;
    const T* a = row(0, r);
    for (int j = 0; j < b_.inputs; ++j)
        share[j] += std::fabs(double(a[j])) * (values_[0].upper[j] - values_[0].lower[j]);
}

bool relu(int k) {
    const Layer<T>& layer = all_[k];
    Value<T>&v = values_[k], &z = values_[layer.source];
    const double sums = 3 * gamma_of(layer.width + 4, unit<T>()) + 4 * unit<T>();
    const double products = gamma_of(terms_[layer.source], unit<T>());
    z.chosen.clear();
    for (int j = 0; j < layer.width; ++j) {
        line(v, z, j);
        v.centre[j] = std::max(z.centre[j], 0.0);
        v.lower[j] = std::max(z.lower[j], 0.0), v.upper[j] = std::max(z.upper[j], 0.0);
        if (z.upper[j] > 0) z.chosen.push_back(j);  // a slope may vanish in T, but others may be tried
    }
    choose_split(layer.source);
    if (all_[layer.source].consumers > 1) choose_all(layer.source);
    describe(k);
    finish_cost(k);
    for (int j = 0; j < layer.width; ++j) {
        const bool open = z.open(j);  // then any lower line may be used, at most |c| away
        const double below = open ? std::fabs(z.centre[j]) : std::fabs(double(v.lower_gain.get()[j]));
        const double gain = std::max(below, std::fabs(double(v.upper_gain.get()[j])));
        const double slope = products * double(z.size.get()[j]);
        v.cost.get()[j] = cast_up<T>((double(v.cost.get()[j]) + gain * sums + slope) * (1 + 1e-9));
    }
    return true;
}

// Lines of one ReLU around the reference: `relu(z) - relu(c) >= slope (z - c) + gain`, and `<=`.
void line(Value<T>& v, const Value<T>& z, int j) {
    const double l = z.lower[j], u = z.upper[j], c = z.centre[j], at = std::max(c, 0.0);
    T low = 0, high = 0;
    double rise = -at;  // of the upper line at the reference
    if (l >= 0) {
        low = high = 1, rise = std::min(c, 0.0);
    } else if (u > 0) {
        ++b_.unstable[item_];
        low = u > -l ? 1 : 0;
        high = static_cast<T>(u / (u - l));
        const double s = high, top = std::max(s * (c - l), u + s * (c - u)) - at;
        rise = top + 0x1p-49 * (s * (std::fabs(c) + std::fabs(l) + u) + u + at) + UNDERFLOW;
        if (is_nan(rise)) high = 0, rise = INFINITE;
    }
    v.lower_slope.get()[j] = low, v.upper_slope.get()[j] = high;
    v.lower_gain.get()[j] = gain_down(low == 0 ? -at : std::min(c, 0.0));
    v.upper_gain.get()[j] = rise == 0 ? T(0) : cast_up<T>(rise);
}

// Multipliers of splits give coefficients to neurons whose ReLU gives none.
void choose_split(int k) {
    auto& chosen = values_[k].chosen;
    const std::size_t active = chosen.size();
    for (int s = 0; s < b_.splits; ++s) {
        const int j = b_.split[static_cast<std::size_t>(item_) * b_.splits + s] - all_[k].offset;
        if (j < 0 || j >= all_[k].width) continue;
        if (!std::binary_search(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(active), j) &&
            std::find(chosen.begin() + static_cast<std::ptrdiff_t>(active), chosen.end(), j) == chosen.end())
            chosen.push_back(j);
    }
}

static T gain_down(double x) { return x == 0 ? T(0) : cast_down<T>(x); }

void choose_all(int k) {
    auto& chosen = values_[k].chosen;
    chosen.resize(static_cast<std::size_t>(all_[k].width));
    for (int j = 0; j < all_[k].width; ++j) chosen[j] = j;
}
