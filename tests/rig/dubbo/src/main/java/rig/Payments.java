package rig;

/** The other one. */
public interface Payments {
  String pay(String what);
}
