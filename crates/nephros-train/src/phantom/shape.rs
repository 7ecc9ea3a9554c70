//! Outlines in one axial plane. Distances are in millimetres, negative inside, exact to first order
//! near the outline, which is where they are used.

/// A rectangle in patient coordinates (millimetres).
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) left: f32,
    pub(super) top: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
}

impl Bounds {
    /// Grown by `margin` on every side.
    pub(super) fn grown(self, margin: f32) -> Self {
        Self {
            left: self.left - margin,
            top: self.top - margin,
            right: self.right + margin,
            bottom: self.bottom + margin,
        }
    }

    /// The smallest rectangle around both.
    pub(super) fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// An ellipse, its first axis turned from the x axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ellipse {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) a: f32,
    pub(super) b: f32,
    cos: f32,
    sin: f32,
}

impl Ellipse {
    /// Centre and half axes along x and y.
    pub(super) fn new(x: f32, y: f32, a: f32, b: f32) -> Self {
        Self { x, y, a, b, cos: 1.0, sin: 0.0 }
    }

    /// A circle.
    pub(super) fn circle(x: f32, y: f32, radius: f32) -> Self {
        Self::new(x, y, radius, radius)
    }

    /// Turned by `angle` radians, from x towards y.
    pub(super) fn turned(self, angle: f32) -> Self {
        Self { cos: angle.cos(), sin: angle.sin(), ..self }
    }

    /// Half axes multiplied by `factor`.
    pub(super) fn scaled(self, factor: f32) -> Self {
        Self { a: self.a * factor, b: self.b * factor, ..self }
    }

    /// Coordinates along the own axes.
    pub(super) fn local(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = (x - self.x, y - self.y);
        (self.cos * dx + self.sin * dy, self.cos * dy - self.sin * dx)
    }

    /// Signed distance.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let (u, v) = self.local(x, y);
        let (p, q) = (u / self.a, v / self.b);
        let level = (p * p + q * q).sqrt();
        let slope = ((p / self.a) * (p / self.a) + (q / self.b) * (q / self.b)).sqrt();
        if slope < 1e-6 { -self.a.min(self.b) } else { level * (level - 1.0) / slope }
    }

    /// Rectangle around the circle of the longer axis.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { left: self.x, right: self.x, top: self.y, bottom: self.y }.grown(self.a.max(self.b))
    }
}

/// A thick line with round ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capsule {
    pub(super) from: (f32, f32),
    pub(super) to: (f32, f32),
    pub(super) radius: f32,
}

impl Capsule {
    /// Signed distance.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (self.to.0 - self.from.0, self.to.1 - self.from.1);
        let (px, py) = (x - self.from.0, y - self.from.1);
        let along = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-6)).clamp(0.0, 1.0);
        let (qx, qy) = (px - along * dx, py - along * dy);
        (qx * qx + qy * qy).sqrt() - self.radius
    }

    /// Rectangle around it.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            left: self.from.0.min(self.to.0),
            right: self.from.0.max(self.to.0),
            top: self.from.1.min(self.to.1),
            bottom: self.from.1.max(self.to.1),
        }
        .grown(self.radius)
    }
}

/// A superellipse of exponent 2.5, the shape of a trunk, between `top` and `bottom`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trunk {
    pub(super) half_width: f32,
    pub(super) top: f32,
    pub(super) bottom: f32,
}

impl Trunk {
    fn half_height(&self) -> f32 {
        (self.bottom - self.top) / 2.0
    }

    fn middle(&self) -> f32 {
        self.top.midpoint(self.bottom)
    }

    /// Signed distance; far from the outline only its sign holds.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let (a, b) = (self.half_width, self.half_height());
        let (s, t) = ((x / a).abs(), ((y - self.middle()) / b).abs());
        if s.max(t) < 0.6 {
            // 2 · 0.6^2.5 = 0.56 < 1: well inside, which spares the roots for a third of all pixels.
            return -0.4 * a.min(b);
        }
        let (s15, t15) = (s * s.sqrt(), t * t.sqrt());
        let level = s * s15 + t * t15;
        let (gx, gy) = (s15 / a, t15 / b);
        (level - 1.0) / (2.5 * (gx * gx + gy * gy).sqrt()).max(1e-5)
    }

    /// The outline at `angle` from the back's midline; positive angles lie on the image's right.
    pub(super) fn point(&self, angle: f32) -> (f32, f32) {
        let (sin, cos) = (angle.sin(), angle.cos());
        let power = |v: f32| v.signum() * v.abs().powf(0.8);
        (self.half_width * power(sin), self.middle() + self.half_height() * power(cos))
    }

    /// Moved inwards: sides, front and back by their own thickness.
    pub(super) fn inset(self, side: f32, front: f32, back: f32) -> Self {
        Self { half_width: self.half_width - side, top: self.top + front, bottom: self.bottom - back }
    }

    /// Rectangle around it.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { left: -self.half_width, right: self.half_width, top: self.top, bottom: self.bottom }
    }
}

/// Union of two distances with a fillet of about `radius`.
pub(super) fn smooth_union(first: f32, second: f32, radius: f32) -> f32 {
    let overlap = (radius - (first - second).abs()).max(0.0) / radius;
    first.min(second) - overlap * overlap * radius * 0.25
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_zero_on_the_outline_and_grow_by_one_a_millimetre() {
        let ellipse = Ellipse::new(5.0, -3.0, 40.0, 20.0).turned(std::f32::consts::FRAC_PI_2);
        // Turned by 90°, the long axis lies along y.
        assert!(ellipse.distance(5.0, 37.0).abs() < 1e-3);
        assert!((ellipse.distance(5.0, 38.0) - 1.0).abs() < 0.05);
        assert!((ellipse.distance(5.0, -3.0) + 20.0).abs() < 1e-3);
        let capsule = Capsule { from: (0.0, 0.0), to: (10.0, 0.0), radius: 2.0 };
        assert!((capsule.distance(5.0, 5.0) - 3.0).abs() < 1e-5);
        assert!((capsule.distance(13.0, 4.0) - 3.0).abs() < 1e-5); // 3-4-5 triangle, less the radius 2
        let trunk = Trunk { half_width: 150.0, top: -100.0, bottom: 80.0 };
        assert!(trunk.distance(150.0, -10.0).abs() < 1e-3);
        assert!((trunk.distance(0.0, 81.0) - 1.0).abs() < 0.05);
        let (x, y) = trunk.point(1.0);
        assert!(trunk.distance(x, y).abs() < 1e-2);
    }

    #[test]
    fn the_smooth_union_contains_both() {
        assert!(smooth_union(-1.0, 5.0, 2.0) <= -1.0);
        assert!((smooth_union(0.0, 0.0, 4.0) + 1.0).abs() < 1e-6); // 4 · 0.25
    }
}
