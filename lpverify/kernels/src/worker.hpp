// Bounds one subproblem at a time, with the scratch memory of one thread. Included once for each
// instruction set.

// What is known of the value of one node on the current subproblem.
template <class T>
struct Value {
    std::vector<double> centre, lower, upper;  // a reference run, and the box
    std::vector<double> base_cost;             // of affine nodes: what rows lose besides `cost`'s other terms
    Aligned<T> middle, radius, size, magnitude;  // the box around the centre: deviations, and |centre|
    Aligned<T> cost;                             // rows `a` on this value lose at most |a| . cost
    Aligned<T> lower_slope, upper_slope, lower_gain, upper_gain;  // of ReLUs: lines around the centre
    std::vector<int> chosen;                                      // coefficients that can be nonzero
    Aligned<T> rows;            // of the backward pass
    bool active = false;        // whether there are any
    std::vector<int> touched;   // which groups of PADDING columns of them can be nonzero; others hold anything
    std::vector<char> is_touched;
};

// A row that is bounded: `sign * element` of a node, for a purpose of the caller.
struct Target {
    int element;
    double sign;
    int tag;
};

template <class T>
class Worker {
    using V = typename Lanes<T>::Vector;
    static constexpr int L = lanes<T>();

  public:
    Worker(const Layers<T> &layers, const Batch &batch) : all_(layers.layers), neurons_(layers.neurons), widest_(layers.widest), b_(batch) {
        const int n = static_cast<int>(all_.size());
        const std::size_t room = (std::size_t(1) << 18) / (sizeof(T) * static_cast<std::size_t>(layers.widest));
        capacity_ = static_cast<int>(std::min<std::size_t>(96, std::max<std::size_t>(8, room)));
        values_.resize(static_cast<std::size_t>(n));
        for (int k = 0; k < n; ++k) reserve(all_[k], values_[k]);
        share_.assign(static_cast<std::size_t>(neurons_) * b_.inputs, 0.0);
        terms_.assign(static_cast<std::size_t>(n), 4.0);
        for (const auto &layer : all_) {
            for (const auto &block : layer.blocks) terms_[block.source] += block.most + 4.0;
            if (layer.kind == Kind::relu) terms_[layer.source] += 5.0;
        }
        for (auto *a : {&constant_, &size_, &loss_, &low_}) a->resize(static_cast<std::size_t>(capacity_));
        for (auto *a : {&mid_, &rad_, &dev_, &mag_}) a->resize(static_cast<std::size_t>(layers.widest));
        exact_.resize(static_cast<std::size_t>(layers.widest));
    }

    std::uint64_t bounded_rows() const { return bounded_rows_; }
    std::uint64_t multiplications() const { return multiplications_; }

    void bound(int i) {
        item_ = i;
        clear_results();
        bool holds = start();
        for (int k = 1; holds && k < static_cast<int>(all_.size()); ++k)
            holds = all_[k].kind == Kind::affine ? affine(k) : relu(k);
        b_.empty[i] = holds ? 0 : 1;
        if (holds) final_rows();
    }

  private:
    static void reserve(const Layer<T> &layer, Value<T> &v) {
        const auto width = static_cast<std::size_t>(layer.width), stride = static_cast<std::size_t>(layer.stride);
        for (auto *a : {&v.centre, &v.lower, &v.upper, &v.base_cost}) a->assign(width, 0.0);
        for (auto *a : {&v.middle, &v.radius, &v.size, &v.magnitude, &v.cost}) a->resize(stride);
        v.is_touched.assign(stride / PADDING, 0);
        if (layer.kind != Kind::relu) return;
        for (auto *a : {&v.lower_slope, &v.upper_slope, &v.lower_gain, &v.upper_gain}) a->resize(stride);
    }

    void clear_results() {
        const auto i = static_cast<std::size_t>(item_), rows = static_cast<std::size_t>(b_.rows);
        const auto n = static_cast<std::size_t>(b_.inputs), splits = static_cast<std::size_t>(b_.splits);
        std::fill_n(b_.value + i * rows, rows, -INFINITE);
        std::fill_n(b_.loss + i * rows, rows, INFINITE);
        std::fill_n(b_.slope + i * rows * n, rows * n, 0.0);
        std::fill_n(b_.height + i * rows, rows, -INFINITE);
        std::fill_n(b_.split_slope + i * splits * n, splits * n, 0.0);
        std::fill_n(b_.split_height + i * splits, splits, -INFINITE);
        std::fill_n(b_.input_score + i * rows * n, rows * n, 0.0);
        std::fill_n(b_.neuron_score + i * rows, rows, -1.0);
        std::fill_n(b_.best_neuron + i * rows, rows, -1);
        b_.unstable[item_] = 0;
    }

    // ---- forward: references, boxes, lines ----

    bool start() {
        Value<T> &v = values_[0];
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
        Value<T> &v = values_[k];
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
        Value<T> &v = values_[k];
        const double factor = (all_[k].consumers + 3) * unit<T>();
        const bool affine = all_[k].kind == Kind::affine;
        for (int j = 0; j < all_[k].width; ++j)
            v.cost.get()[j] = cast_up<T>((double(v.size.get()[j]) * factor + (affine ? v.base_cost[j] : 0)) * (1 + 1e-9));
    }

    bool affine(int k) {
        const Layer<T> &layer = all_[k];
        Value<T> &v = values_[k];
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
    double most_terms(const Layer<T> &layer) const {
        double most = 0;
        for (const auto &block : layer.blocks) most = std::max(most, terms_[block.source]);
        return most;
    }

    // Reference run, and middle, radius, size and magnitude carried through the weights; no bias yet.
    void forward(const Layer<T> &layer) {
        for (auto *a : {&mid_, &rad_, &dev_, &mag_}) std::fill_n(a->get(), layer.stride, T(0));
        std::fill_n(exact_.get(), layer.stride, 0.0);
        sum_size_ = sum_magnitude_ = 0;
        for (const Matrix<T> &m : layer.blocks) {
            const Value<T> &x = values_[m.source];
            if (layer.lost > 0)
                for (int j = 0; j < m.cols; ++j) sum_size_ += x.size.get()[j] * 1.001, sum_magnitude_ += x.magnitude.get()[j] * 1.001;
            if (m.sparse)
                forward_sparse(m, x);
            else
                forward_dense(m, x);
        }
    }

    void forward_dense(const Matrix<T> &m, const Value<T> &x) {
        for (int j = 0; j < m.cols; ++j) {
            const T middle = x.middle.get()[j], radius = x.radius.get()[j], size = x.size.get()[j];
            const T magnitude = x.magnitude.get()[j];
            if (size == 0 && magnitude == 0) continue;
            const T *w = m.turned.get() + static_cast<std::size_t>(j) * m.ldt;
            const double *e = m.exact_turned.get() + static_cast<std::size_t>(j) * m.ldt;
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

    void forward_sparse(const Matrix<T> &m, const Value<T> &x) {
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
        Value<T> &v = values_[k];
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
        Value<T> &v = values_[k];
        const int offset = all_[k].offset;
        const std::size_t base = static_cast<std::size_t>(item_) * neurons_ + offset;
        targets_.clear();
        for (int j = 0; j < all_[k].width; ++j) {
            if (!(v.lower[j] < 0 && v.upper[j] > 0)) continue;
            double *share = share_.data() + static_cast<std::size_t>(offset + j) * b_.inputs;
            std::fill_n(share, b_.inputs, 0.0);
            if (direct(all_[k])) {  // its interval is exact
                add_share(all_[k].blocks[0], j, share);
                continue;
            }
            targets_.push_back({j, 1.0, -1});
            targets_.push_back({j, -1.0, -1});
        }
        for (int s = 0; s < b_.splits; ++s) {
            const std::size_t place = static_cast<std::size_t>(item_) * b_.splits + s;
            const int neuron = b_.split[place];
            if (neuron < offset || neuron >= offset + all_[k].width) continue;
            targets_.push_back({neuron - offset, b_.side[place] > 0 ? -1.0 : 1.0, s});
        }
        for (std::size_t first = 0; first < targets_.size(); first += capacity_) {
            const int count = static_cast<int>(std::min<std::size_t>(capacity_, targets_.size() - first));
            const Target *t = targets_.data() + first;
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
    static bool direct(const Layer<T> &layer) { return layer.blocks.size() == 1 && layer.blocks[0].source == 0; }

    void add_share(const Matrix<T> &m, int row, double *share) const {
        const Value<T> &x = values_[0];
        auto add = [&](int j, double w) { share[j] += std::fabs(w) * (x.upper[j] - x.lower[j]); };
        if (m.sparse)
            for (int q = m.start[row]; q < m.start[row + 1]; ++q) add(m.column[q], m.exact[q]);
        else
            for (int j = 0; j < m.cols; ++j) add(j, m.weight.get()[static_cast<std::size_t>(row) * m.ld + j]);
    }

    void use_row(int k, const Target &t, int r) {
        Value<T> &v = values_[k];
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
        double *share = share_.data() + static_cast<std::size_t>(all_[k].offset + t.element) * b_.inputs;
        const T *a = row(0, r);
        for (int j = 0; j < b_.inputs; ++j) share[j] += std::fabs(double(a[j])) * (values_[0].upper[j] - values_[0].lower[j]);
    }

    bool relu(int k) {
        const Layer<T> &layer = all_[k];
        Value<T> &v = values_[k], &z = values_[layer.source];
        const double sums = 3 * gamma_of(layer.width + 4, unit<T>()) + 4 * unit<T>();
        const double products = gamma_of(terms_[layer.source], unit<T>());
        z.chosen.clear();
        for (int j = 0; j < layer.width; ++j) {
            line(v, z, j);
            v.centre[j] = std::max(z.centre[j], 0.0);
            v.lower[j] = std::max(z.lower[j], 0.0), v.upper[j] = std::max(z.upper[j], 0.0);
            if (v.lower_slope.get()[j] != 0 || v.upper_slope.get()[j] != 0) z.chosen.push_back(j);
        }
        if (all_[layer.source].consumers > 1) choose_all(layer.source);
        describe(k);
        finish_cost(k);
        for (int j = 0; j < layer.width; ++j) {
            const double gain = std::max(std::fabs(double(v.lower_gain.get()[j])), std::fabs(double(v.upper_gain.get()[j])));
            const double slope = products * double(z.size.get()[j]);
            v.cost.get()[j] = cast_up<T>((double(v.cost.get()[j]) + gain * sums + slope) * (1 + 1e-9));
        }
        return true;
    }

    // Lines of one ReLU around the reference: `relu(z) - relu(c) >= slope (z - c) + gain`, and `<=`.
    void line(Value<T> &v, const Value<T> &z, int j) {
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

    static T gain_down(double x) { return x == 0 ? T(0) : cast_down<T>(x); }

    void choose_all(int k) {
        auto &chosen = values_[k].chosen;
        chosen.resize(static_cast<std::size_t>(all_[k].width));
        for (int j = 0; j < all_[k].width; ++j) chosen[j] = j;
    }

    // ---- backward ----

    T *row(int k, int r) { return values_[k].rows.get() + static_cast<std::size_t>(r) * all_[k].stride; }

    void activate(int k) {
        values_[k].active = true;
        values_[k].rows.resize(static_cast<std::size_t>(capacity_) * all_[k].stride);
    }

    // Makes a group of columns of `count` rows part of the backward pass.
    void touch(int k, int group, int count) {
        Value<T> &v = values_[k];
        if (v.is_touched[group]) return;
        v.is_touched[group] = 1;
        v.touched.push_back(group);
        for (int r = 0; r < count; ++r) std::fill_n(row(k, r) + group * PADDING, PADDING, T(0));
    }

    void touch_all(int k, int count) {
        for (int group = 0; group < all_[k].stride / PADDING; ++group) touch(k, group, count);
    }

    void leave(int k) {
        Value<T> &v = values_[k];
        for (int group : v.touched) v.is_touched[group] = 0;
        v.touched.clear();
        v.active = false;
    }

    // Bounds rows that are signed elements of an affine node: fills `constant_`, `loss_`, `low_` and the
    // rows of node 0 with `row - reference >= a . (x - centre) + constant - loss >= low`.
    void rows_below(int k, const Target *targets, int count, int row_base = -1) {
        const Layer<T> &layer = all_[k];
        bounded_rows_ += count;
        for (int r = 0; r < count; ++r) {
            constant_[r] = size_[r] = 0;
            loss_[r] = values_[k].base_cost[targets[r].element];
        }
        for (const Matrix<T> &m : layer.blocks) {
            activate(m.source);
            if (!m.sparse) touch_all(m.source, count);
            for (int r = 0; r < count && m.sparse; ++r) touch_row(m, targets[r].element, count);
            for (int r = 0; r < count; ++r) seed(m, targets[r], row(m.source, r));
        }
        for (int v = k - 1; v > 0; --v) {
            if (!values_[v].active) continue;
            if (all_[v].kind == Kind::relu)
                through_relu(v, count, row_base);
            else
                through_affine(v, count);
            leave(v);
        }
        activate(0);
        touch_all(0, count);
        leave(0);
        for (int r = 0; r < count; ++r) concretize(r);
    }

    void touch_row(const Matrix<T> &m, int i, int count) {
        for (int q = m.start[i]; q < m.start[i + 1]; ++q) touch(m.source, m.column[q] / PADDING, count);
    }

    static void seed(const Matrix<T> &m, const Target &t, T *a) {
        const T sign = static_cast<T>(t.sign);
        if (m.sparse) {
            for (int q = m.start[t.element]; q < m.start[t.element + 1]; ++q) a[m.column[q]] += sign * m.value[q];
            return;
        }
        const T *w = m.weight.get() + static_cast<std::size_t>(t.element) * m.ld;
        for (int i = 0; i < m.ld; i += L) store<T>(a + i, load<T>(a + i) + load<T>(w + i) * sign);
    }

    void through_relu(int k, int count, int row_base) {
        const Value<T> &v = values_[k];
        const int below = all_[k].source;
        activate(below);
        for (int group : v.touched) touch(below, group, count);
        for (int r = 0; r < count; ++r) {
            const T *a = row(k, r);
            T *b = row(below, r);
            V gain = V{} + T(0), loss = V{} + T(0);
            for (int group : v.touched)
                for (int i = group * PADDING; i < (group + 1) * PADDING; i += L) {
                    const V x = load<T>(a + i);
                    const auto up = x < 0;
                    const V slope = up ? load<T>(v.upper_slope.get() + i) : load<T>(v.lower_slope.get() + i);
                    gain += x * (up ? load<T>(v.upper_gain.get() + i) : load<T>(v.lower_gain.get() + i));
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
        const Layer<T> &layer = all_[k];
        Value<T> &v = values_[k];
        for (int r = 0; r < count; ++r) {
            const T *a = row(k, r);
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
        for (const Matrix<T> &m : layer.blocks) {
            activate(m.source);
            if (m.sparse) {
                for (int j : columns_) touch_row(m, j, count);
                for (int r = 0; r < count; ++r) scatter(m, columns_, row(k, r), row(m.source, r));
                for (int j : columns_) multiplications_ += static_cast<std::uint64_t>(count) * (m.start[j + 1] - m.start[j]);
            } else {
                touch_all(m.source, count);
                multiply<T>(row(k, 0), layer.stride, count, columns_.data(), chosen, m.weight.get(), m.ld,
                            row(m.source, 0), all_[m.source].stride, m.ld);
                multiplications_ += static_cast<std::uint64_t>(count) * chosen * m.cols;
            }
        }
    }

    static void scatter(const Matrix<T> &m, const std::vector<int> &chosen, const T *a, T *b) {
        for (int j : chosen) {
            const T factor = a[j];
            if (factor == 0) continue;
            for (int q = m.start[j]; q < m.start[j + 1]; ++q) b[m.column[q]] += factor * m.value[q];
        }
    }

    // The least value of a row over the input box, relative to the reference.
    void concretize(int r) {
        const Value<T> &x = values_[0];
        const T *a = row(0, r);
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
    double absolute_row(int r, double at, double *slope) {
        const Value<T> &x = values_[0];
        const T *a = row(0, r);
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

    // ---- the forms ----

    void final_rows() {
        const int k = static_cast<int>(all_.size()) - 1;
        targets_.clear();
        for (int r = 0; r < b_.rows; ++r) {
            const int form = b_.wanted[static_cast<std::size_t>(item_) * b_.rows + r];
            if (form >= 0) targets_.push_back({form, 1.0, r});
        }
        for (std::size_t first = 0; first < targets_.size(); first += capacity_) {
            const int count = static_cast<int>(std::min<std::size_t>(capacity_, targets_.size() - first));
            const Target *t = targets_.data() + first;
            rows_below(k, t, count, static_cast<int>(first));
            for (int r = 0; r < count; ++r) report(k, t[r], r);
        }
    }

    void report(int k, const Target &t, int r) {
        const std::size_t place = static_cast<std::size_t>(item_) * b_.rows + t.tag;
        const double c = values_[k].centre[t.element];
        const double value = std::max(step_down(c + low_[r]), values_[k].lower[t.element]);
        b_.value[place] = value;
        b_.loss[place] = loss_[r];
        b_.height[place] = absolute_row(r, c, b_.slope + place * b_.inputs);
    }

    // Which neurons loosen each row, and through which inputs.
    void score(int k, int count, int row_base) {
        const Value<T> &z = values_[all_[k].source];
        const int offset = all_[all_[k].source].offset;
        for (int j = 0; j < all_[k].width; ++j) {
            const double l = z.lower[j], u = z.upper[j];
            if (!(l < 0 && u > 0) || !values_[k].is_touched[j / PADDING]) continue;
            const double *share = share_.data() + static_cast<std::size_t>(offset + j) * b_.inputs;
            double all = 0;
            for (int i = 0; i < b_.inputs; ++i) all += share[i];
            const double above = -l * u / (u - l), below = 0.5 * std::min(-l, u);
            for (int r = 0; r < count; ++r) {
                const double a = row(k, r)[j], gap = a < 0 ? -a * above : a * below;
                const std::size_t place = static_cast<std::size_t>(item_) * b_.rows + targets_[row_base + r].tag;
                if (gap > b_.neuron_score[place]) b_.neuron_score[place] = gap, b_.best_neuron[place] = offset + j;
                if (!(all > 0)) continue;
                for (int i = 0; i < b_.inputs; ++i) b_.input_score[place * b_.inputs + i] += gap * share[i] / all;
            }
        }
    }

    const std::vector<Layer<T>> &all_;
    int neurons_, widest_;
    const Batch &b_;
    int item_ = 0, capacity_ = 0;
    std::vector<Value<T>> values_;
    std::vector<double> share_, terms_, constant_, size_, loss_, low_;
    std::vector<Target> targets_;
    std::vector<int> columns_;
    Aligned<T> mid_, rad_, dev_, mag_;
    Aligned<double> exact_;
    double sum_size_ = 0, sum_magnitude_ = 0, slack_ = 0;
    std::uint64_t bounded_rows_ = 0, multiplications_ = 0;
};
