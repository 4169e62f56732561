// The way down: rows over a node become rows over the inputs. Part of the class `Worker`.

T* row(int k, int r) { return values_[k].rows.get() + static_cast<std::size_t>(r) * all_[k].stride; }

void activate(int k) {
    values_[k].active = true;
    values_[k].rows.resize(static_cast<std::size_t>(capacity_) * all_[k].stride);
}

// Makes a group of columns of `count` rows part of the backward pass.
void touch(int k, int group, int count) {
    Value<T>& v = values_[k];
    if (v.is_touched[group]) return;
    v.is_touched[group] = 1;
    v.touched.push_back(group);
    for (int r = 0; r < count; ++r) std::fill_n(row(k, r) + group * PADDING, PADDING, T(0));
}

void touch_all(int k, int count) {
    for (int group = 0; group < all_[k].stride / PADDING; ++group) touch(k, group, count);
}

void leave(int k) {
    Value<T>& v = values_[k];
    for (int group : v.touched) v.is_touched[group] = 0;
    v.touched.clear();
    v.active = false;
}

// Bounds rows that are signed elements of an affine node: fills `constant_`, `loss_`, `low_` and the
// rows of node 0 with `row - reference >= a . (x - centre) + constant - loss >= low`. A `mixed` row, a single
// one, takes the lower lines and the split terms that are being optimised.
void rows_below(int k, const Target* targets, int count, int row_base = -1, bool mixed = false) {
    const Layer<T>& layer = all_[k];
    bounded_rows_ += count;
    for (auto& m : mixes_) m.used.clear();
    for (int r = 0; r < count; ++r) {
        constant_[r] = size_[r] = 0;
        loss_[r] = values_[k].base_cost[targets[r].element];
    }
    for (const Matrix<T>& m : layer.blocks) {
        activate(m.source);
        if (!m.sparse) touch_all(m.source, count);
        for (int r = 0; r < count && m.sparse; ++r) touch_row(m, targets[r].element, count);
        for (int r = 0; r < count; ++r) seed(m, targets[r], row(m.source, r));
    }
    for (int v = k - 1; v > 0; --v) {
        if (mixed) add_splits(v);
        if (!values_[v].active) continue;
        if (all_[v].kind == Kind::affine)
            through_affine(v, count);
        else if (mixed)
            through_relu(v, count, row_base, mixes_[v].slope.get(), mixes_[v].gain.get());
        else
            through_relu(v, count, row_base, values_[v].lower_slope.get(), values_[v].lower_gain.get());
        if (mixed) mixes_[v].used = values_[v].is_touched;
        leave(v);
    }
    activate(0);
    touch_all(0, count);
    leave(0);
    for (int r = 0; r < count; ++r) concretize(r);
}

void touch_row(const Matrix<T>& m, int i, int count) {
    for (int q = m.start[i]; q < m.start[i + 1]; ++q) touch(m.source, m.column[q] / PADDING, count);
}

static void seed(const Matrix<T>& m, const Target& t, T* a) {
    const T sign = static_cast<T>(t.sign);
    if (m.sparse) {
        for (int q = m.start[t.element]; q < m.start[t.element + 1]; ++q) a[m.column[q]] += sign * m.value[q];
        return;
    }
    const T* w = m.weight.get() + static_cast<std::size_t>(t.element) * m.ld;
    for (int i = 0; i < m.ld; i += L) store<T>(a + i, load<T>(a + i) + load<T>(w + i) * sign);
}

void through_relu(int k, int count, int row_base, const T* lower_slope, const T* lower_gain) {
    const Value<T>& v = values_[k];
    const int below = all_[k].source;
    activate(below);
    for (int group : v.touched) touch(below, group, count);
    for (int r = 0; r < count; ++r) {
        const T* a = row(k, r);
        T* b = row(below, r);
        V gain = V{} + T(0), loss = V{} + T(0);
        for (int group : v.touched)
            for (int i = group * PADDING; i < (group + 1) * PADDING; i += L) {
                const V x = load<T>(a + i);
                const auto up = x < 0;
                const V slope = up ? load<T>(v.upper_slope.get() + i) : load<T>(lower_slope + i);
                gain += x * (up ? load<T>(v.upper_gain.get() + i) : load<T>(lower_gain + i));
                loss += absolute<T>(x) * load<T>(v.cost.get() + i);
                store<T>(b + i, load<T>(b + i) + x * slope);
            }
        const double sum = sum_lanes<T>(gain);
        constant_[r] += sum, size_[r] += std::fabs(sum);
        loss_[r] += sum_lanes<T>(loss);
    }
    if (row_base >= 0) score(k, count, row_base);
}

void through_affine(int k, int count) {
    const Layer<T>& layer = all_[k];
    Value<T>& v = values_[k];
    for (int r = 0; r < count; ++r) {
        const T* a = row(k, r);
        V loss = V{} + T(0);
        for (int group : v.touched)
            for (int i = group * PADDING; i < (group + 1) * PADDING; i += L)
                loss += absolute<T>(load<T>(a + i)) * load<T>(v.cost.get() + i);
        loss_[r] += sum_lanes<T>(loss);
    }
    columns_.clear();
    for (int j : v.chosen)
        if (v.is_touched[j / PADDING]) columns_.push_back(j);
    const int chosen = static_cast<int>(columns_.size());
    for (const Matrix<T>& m : layer.blocks) {
        activate(m.source);
        if (m.sparse) {
            for (int j : columns_) touch_row(m, j, count);
            for (int r = 0; r < count; ++r) scatter(m, columns_, row(k, r), row(m.source, r));
            for (int j : columns_)
                multiplications_ += static_cast<std::uint64_t>(count) * (m.start[j + 1] - m.start[j]);
        } else {
            touch_all(m.source, count);
            multiply<T>(row(k, 0), layer.stride, count, columns_.data(), chosen, m.weight.get(), m.ld, row(m.source, 0),
                        all_[m.source].stride, m.ld);
            multiplications_ += static_cast<std::uint64_t>(count) * chosen * m.cols;
        }
    }
}

static void scatter(const Matrix<T>& m, const std::vector<int>& chosen, const T* a, T* b) {
    for (int j : chosen) {
        const T factor = a[j];
        if (factor == 0) continue;
        for (int q = m.start[j]; q < m.start[j + 1]; ++q) b[m.column[q]] += factor * m.value[q];
    }
}

// The least value of a row over the input box, relative to the reference.
void concretize(int r) {
    const Value<T>& x = values_[0];
    const T* a = row(0, r);
    double total = 0, size = 0, lost = 0;
    for (int j = 0; j < b_.inputs; ++j) {
        const double s = a[j];
        total += s > 0 ? s * step_down(x.lower[j] - x.centre[j]) : s * step_up(x.upper[j] - x.centre[j]);
        size += std::fabs(s) * double(x.size.get()[j]);
        lost += std::fabs(s) * double(x.cost.get()[j]);
    }
    const double terms = static_cast<double>(all_.size());
    loss_[r] = (loss_[r] + lost) * inflation<T>(widest_ + 4 * terms) + slack_;
    loss_[r] += loss_[r] * 0x1p-20 + size_[r] * (4 * terms + 8) * DOUBLE;
    const double error =
        size * gamma_of(2.0 * b_.inputs + 4, DOUBLE) + (std::fabs(total) + std::fabs(constant_[r])) * 4 * DOUBLE;
    const double low = step_down(total + constant_[r] - (loss_[r] + error * 1.001 + UNDERFLOW));
    low_[r] = is_nan(low) ? -INFINITE : low;
}

// `slope x + height` below a row whose reference is `at`; returns the height.
double absolute_row(int r, double at, double* slope) {
    const Value<T>& x = values_[0];
    const T* a = row(0, r);
    double total = 0, size = 0;
    for (int j = 0; j < b_.inputs; ++j) {
        const double s = a[j];
        slope[j] = s, total += s * x.centre[j], size += std::fabs(s) * std::fabs(x.centre[j]);
    }
    const double parts = std::fabs(at) + std::fabs(constant_[r]) + loss_[r] + std::fabs(total);
    const double error = size * gamma_of(b_.inputs + 4.0, DOUBLE) * 1.001 + parts * 0x1p-50 + UNDERFLOW;
    const double height = step_down(at + constant_[r] - total - loss_[r] - error);
    return is_nan(height) ? -INFINITE : height;
}
