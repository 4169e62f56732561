// Rows of the forms that the query compares, and what splits would do for them. Part of the class `Worker`.

void final_rows() {
    const int k = static_cast<int>(all_.size()) - 1;
    targets_.clear();
    for (int r = 0; r < b_.rows; ++r) {
        const int form = b_.wanted[static_cast<std::size_t>(item_) * b_.rows + r];
        if (form >= 0) targets_.push_back({form, 1.0, r});
    }
    for (std::size_t first = 0; first < targets_.size(); first += capacity_) {
        const int count = static_cast<int>(std::min<std::size_t>(capacity_, targets_.size() - first));
        const Target* t = targets_.data() + first;
        rows_below(k, t, count, static_cast<int>(first));
        for (int r = 0; r < count; ++r) report(k, t[r], r);
    }
    for (int r = 0; r < static_cast<int>(targets_.size()) && b_.steps > 0; ++r) {
        const std::size_t place = static_cast<std::size_t>(item_) * b_.rows + targets_[r].tag;
        if (b_.value[place] > b_.goal[place])
            adaptive(place);
        else
            ascend(r);
    }
}

void report(int k, const Target& t, int r) {
    const std::size_t place = static_cast<std::size_t>(item_) * b_.rows + t.tag;
    const double c = values_[k].centre[t.element];
    const double value = std::max(step_down(c + low_[r]), values_[k].lower[t.element]);
    b_.value[place] = value;
    b_.loss[place] = loss_[r];
    b_.height[place] = absolute_row(r, c, b_.slope + place * b_.inputs);
}

// Which neurons loosen each row, and through which inputs.
void score(int k, int count, int row_base) {
    const Value<T>& z = values_[all_[k].source];
    const int offset = all_[all_[k].source].offset;
    for (int j = 0; j < all_[k].width; ++j) {
        const double l = z.lower[j], u = z.upper[j];
        if (!(l < 0 && u > 0) || !values_[k].is_touched[j / PADDING]) continue;
        const double* share = share_.data() + static_cast<std::size_t>(offset + j) * b_.inputs;
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
