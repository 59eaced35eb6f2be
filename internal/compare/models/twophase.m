-- Two-phase commit as TwoPhase of the TLA+ examples has it (Gray and Lamport 2006, section 3).
const N: 8;
type
  rmid: 1..N;
  rmstate: enum { working, prepared, committed, aborted };
  tmstate: enum { init, tmcommitted, tmaborted };
var
  rms: array [rmid] of rmstate;
  tm: tmstate;
  tmprepared: array [rmid] of boolean;
  msgprepared: array [rmid] of boolean;
  msgcommit: boolean;
  msgabort: boolean;

startstate begin
  for r: rmid do rms[r] := working; tmprepared[r] := false; msgprepared[r] := false; end;
  tm := init; msgcommit := false; msgabort := false;
end;

ruleset r: rmid do
  rule "TMRcvPrepared" tm = init & msgprepared[r] & !tmprepared[r] ==> begin tmprepared[r] := true; end;
  rule "RMPrepare" rms[r] = working ==> begin rms[r] := prepared; msgprepared[r] := true; end;
  rule "RMChooseToAbort" rms[r] = working ==> begin rms[r] := aborted; end;
  rule "RMRcvCommit" msgcommit & rms[r] != committed ==> begin rms[r] := committed; end;
  rule "RMRcvAbort" msgabort & rms[r] != aborted ==> begin rms[r] := aborted; end;
end;
rule "TMCommit" tm = init & forall r: rmid do tmprepared[r] end ==> begin tm := tmcommitted; msgcommit := true; end;
rule "TMAbort" tm = init ==> begin tm := tmaborted; msgabort := true; end;

invariant "TCConsistent"
  forall a: rmid do forall b: rmid do !(rms[a] = aborted & rms[b] = committed) end end;
